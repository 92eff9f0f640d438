"""A server that, told to stop, finishes what it has accepted while it still answers."""

import asyncio

import structlog
import uvicorn
from fastapi import FastAPI

from app.deps import Service

WRITE_OUT_S = 10
"""Seconds that answers get to reach their callers after the last picture was painted."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """Uvicorn's server with one more stage between the signal and the closed port.

    On SIGTERM or Ctrl-C `/readyz` turns red and new pictures are refused with 503 and Retry-After,
    while accepted ones are painted, for up to the drain timeout. Then the port closes. A second
    Ctrl-C ends it at once.

    Args:
        config: Uvicorn's.
        app: The application; its service is drained.
        drain_timeout_s: Seconds that accepted requests get.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, drain_timeout_s: float) -> None:
        config.timeout_graceful_shutdown = WRITE_OUT_S
        super().__init__(config)
        self._app = app
        self._drain_timeout_s = drain_timeout_s

    async def main_loop(self) -> None:
        """Serve until told to stop, and then until what was accepted is finished."""
        await super().main_loop()
        service = self._app.state.service
        assert isinstance(service, Service)
        service.readiness.end()
        if self._app.state.runner is not None:
            self._app.state.runner.finish()
        state = service.host.state()
        log.info("draining", num_waiting=state.num_waiting, num_running=state.num_running)
        draining = asyncio.create_task(service.host.drain(self._drain_timeout_s))
        while not draining.done() and not self.force_exit:
            await asyncio.wait((draining,), timeout=0.1)
        is_done = draining.done() and draining.result()
        draining.cancel()
        await asyncio.wait((draining,))
        log.info("drained", is_complete=is_done)
        if not is_done:
            await service.host.close()
