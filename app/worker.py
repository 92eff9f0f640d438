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
    """Work on batches, without a port, until told to stop.

    Args:
        overrides: Settings by field name that win over the environment. ConfigError and
            CheckpointError say that these cannot work.
    """
    settings = read_settings(**overrides)
    configure_logging(settings)
    check_webhooks(settings)
    database = open_database(settings)
    painters = load_painters(settings)

    async def run() -> None:
        service = await make_service(settings, painters, database)
        runner = make_runner(service)
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        runner.start()
        log.info("working", variants=list(painters))
        await stopping.wait()
        await runner.close()
        await service.host.close()
        await service.planner.close()

    asyncio.run(run())
    database.close()
