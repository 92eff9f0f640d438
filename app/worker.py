"""A process that works on batches and listens on no port."""

import asyncio
import signal

import structlog

from app.batch_runner import make_runner
from app.main import check_webhooks, load_painters, make_service, open_database
from app.operations.telemetry import configure_logging
from app.settings import read_settings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def work(**overrides: object) -> None:
    """Work on batches, without a port, until a signal says stop; the process ends by that signal.

    Args:
        overrides: Settings by field name that win over the environment. ConfigError and
            CheckpointError say that these cannot work.
    """
    settings = read_settings(**overrides)
    configure_logging(settings)
    check_webhooks(settings)
    database = open_database(settings)
    painters = load_painters(settings)

    async def run() -> signal.Signals:
        service = await make_service(settings, painters, database)
        runner = make_runner(service)
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[signal.Signals] = loop.create_future()

        def stop(number: signal.Signals) -> None:
            if not stopped.done():
                stopped.set_result(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        runner.start()
        log.info("working", variants=list(painters))
        reason = await stopped
        await runner.close()
        await service.host.close()
        await service.planner.close()
        return reason

    reason = asyncio.run(run())
    database.close()
    # As the server ends. Taking an interpreter with torch in it apart takes seconds, and gives
    # nobody anything.
    signal.signal(reason, signal.SIG_DFL)
    signal.raise_signal(reason)
