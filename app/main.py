"""The server: settings, model, application, socket, in this order."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from app.deps import Service
from app.errors import install_error_handlers
from app.generator import Generator
from app.routes import health, images, models
from app.schemas import ErrorEnvelope
from app.settings import Settings, check_host, read_settings
from app.telemetry import BodyLimitMiddleware, RequestContextMiddleware, configure_logging
from app.warm_up import warm_up
from app.worker import DeviceWorker
from core.errors import ConfigError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def serve(**overrides: object) -> None:
    """Run a server until it is told to stop.

    The port is taken first and the model loaded second, so that neither a taken port nor a bad
    checkpoint is found out late; clients can connect only after both.

    Args:
        overrides: Settings by field name that win over the environment. ConfigError and
            CheckpointError say before anything listens that these cannot work.
    """
    settings = read_settings(**overrides)
    configure_logging(settings)
    with take_port(settings) as listener:
        generator = load_generator(settings)
        failures: list[ConfigError] = []

        def give_up(reason: ConfigError) -> None:
            failures.append(reason)
            server.should_exit = True

        app = create_app(settings, generator, on_failed_warm_up=give_up)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=settings.drain_timeout_s,
            )
        )
        host, port = listener.getsockname()[:2]
        log.info("listening", host=host, port=port, model=generator.info.name)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after a clean stop
            server.run(sockets=[listener])
    if failures:
        raise failures[0]


def create_app(
    settings: Settings | None = None,
    generator: Generator | None = None,
    *,
    on_failed_warm_up: Callable[[ConfigError], None] | None = None,
) -> FastAPI:
    """Build the application; the model is loaded and warmed up when it starts, not here.

    Args:
        settings: How it is deployed; None reads the environment.
        generator: A loaded model; None loads the one that the settings name.
        on_failed_warm_up: Told once if the first picture fails. The server stays unready then.

    Returns:
        An ASGI application.
    """
    deployed = read_settings() if settings is None else settings
    check_host(deployed)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        model = generator
        if model is None:
            model = await asyncio.to_thread(load_generator, deployed)
        worker = DeviceWorker(model, queue_capacity=deployed.queue_capacity)
        service = Service(settings=deployed, generator=model, worker=worker)
        app.state.service = service
        warming = asyncio.create_task(warm_up(app))
        settle = partial(_settle, service=service, on_failure=on_failed_warm_up)
        warming.add_done_callback(settle)
        yield
        service.readiness.is_ready = False
        service.readiness.reason = "The server is shutting down."
        warming.remove_done_callback(settle)  # a warm-up that we stop has not failed
        warming.cancel()
        await worker.close()
        await asyncio.gather(warming, return_exceptions=True)

    app = FastAPI(
        title="Fewstroke",
        summary="Text to image over OpenAI's API.",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # the page would load its script from a foreign server
        redoc_url=None,
        responses={"default": {"model": ErrorEnvelope, "description": "Any failure."}},
        middleware=[
            Middleware(RequestContextMiddleware),
            Middleware(BodyLimitMiddleware, max_body_bytes=deployed.max_body_bytes),
        ],
    )
    install_error_handlers(app)
    for router in (images.router, models.router, health.router):
        app.include_router(router)
    return app


def load_generator(settings: Settings) -> Generator:
    """Load the model that the settings name.

    Args:
        settings: Give path, variant, device and number format.

    Returns:
        A model that is ready to paint; what is wrong with it is raised as
        `TextToImage.load` says.
    """
    from pipelines.text_to_image import TextToImage

    return TextToImage.load(
        settings.model, variant=settings.variant, device=settings.device, dtype=settings.dtype
    )


def take_port(settings: Settings) -> socket.socket:
    """Bind the address, so that nobody else can, without answering on it yet.

    Args:
        settings: Give host and port.

    Returns:
        A bound socket that does not listen.

    Raises:
        ConfigError: If the address is taken, foreign or unknown.
    """
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror or error}. "
            "Choose another with --port (0 takes a free one), or stop what listens there.",
            param="port",
        ) from error
    return listener


def _settle(
    warming: asyncio.Task[None],
    service: Service,
    on_failure: Callable[[ConfigError], None] | None,
) -> None:
    failure = warming.exception()
    if failure is None:
        service.readiness.is_ready = True
        info = service.generator.info
        log.info("ready", model=info.name, variant=info.variant, revision=info.revision)
        return
    reason = ConfigError(f"The model cannot paint: {failure}")
    service.readiness.reason = reason.message
    log.error("warm_up_failed", reason=reason.message)
    if on_failure is not None:
        on_failure(reason)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fewstroke")
    except PackageNotFoundError:
        return "0+unknown"
