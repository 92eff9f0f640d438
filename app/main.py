"""The server: settings, database, port, model, application, in this order."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware

from app.access.auth import AuthMiddleware, KeyRing
from app.access.idempotency import AnswerBook
from app.access.quotas import Quotas
from app.access.shared_secrets import shared_secret
from app.access.signed_urls import PictureLinks
from app.batch_runner import make_runner
from app.batches.batches import Batches
from app.batches.webhooks import key_of
from app.deps import Service
from app.draining import DrainingServer
from app.engine_host import EngineHost
from app.errors import install_error_handlers, refuse
from app.images.planning import make_planner
from app.operations.limits import RequestLimitMiddleware, RequestLimits
from app.operations.metrics import Metrics
from app.operations.telemetry import (
    PROBES,
    RequestContextMiddleware,
    configure_logging,
)
from app.routes import admin, batches, files, health, images, models, plans, studio
from app.schemas.images import ErrorEnvelope
from app.schemas.stated_limits import state_limits
from app.settings import Settings, check_host, read_settings
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.files import Files
from app.weights.chosen import served_variants
from app.weights.refresh import Refresher
from app.weights.releases import ReleaseShelf
from app.weights.warm_up import warm_up
from core.errors import CapacityError, ConfigError
from core.large_imports import large_imports
from pipelines.engine import Engine
from pipelines.intake import Intake
from pipelines.orders import Limits
from pipelines.painter import Painter

SWEEP_EVERY_S = 600.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def serve(**overrides: object) -> None:
    """Run a server until it is told to stop.

    The database and the port are taken first and the model loaded second, so that neither a taken
    port nor a bad checkpoint is found out late; clients can connect only after all of them.

    Args:
        overrides: Settings by field name that win over the environment. ConfigError and
            CheckpointError say before anything listens that these cannot work.
    """
    settings = read_settings(**overrides)
    configure_logging(settings)
    check_webhooks(settings)
    database = open_database(settings)
    check_host(settings, KeyRing(database).count()[0])
    with take_port(settings) as listener:
        painters = load_painters(settings)
        failures: list[ConfigError] = []

        def give_up(reason: ConfigError) -> None:
            failures.append(reason)
            server.should_exit = True

        app = create_app(settings, painters, database, on_failed_warm_up=give_up)
        server = make_server(app, settings)
        host, port = listener.getsockname()[:2]
        log.info("listening", host=host, port=port, variants=list(painters))
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after a clean stop
            server.run(sockets=[listener])
    if failures:
        raise failures[0]


TELEMETRY: TelemetryConfig = {
    "auto_configure": True,  # traces go where OTEL_EXPORTER_OTLP_ENDPOINT says
    "logs": False,  # they would hold bodies
    "exclude": lambda scope: scope.get("path") in PROBES,
}


def create_app(
    settings: Settings | None = None,
    painters: Mapping[str, Painter] | None = None,
    database: Database | None = None,
    *,
    on_failed_warm_up: Callable[[ConfigError], None] | None = None,
) -> FastAPI:
    """Build the application; the model is loaded and warmed up when it starts, not here.

    Args:
        settings: How it is deployed; None reads the environment.
        painters: Loaded models by variant, the default first; None loads what the settings name.
        database: An open database; None opens the one that the settings name.
        on_failed_warm_up: Told once if the first picture fails. The server stays unready then.

    Returns:
        An ASGI application.
    """
    deployed = read_settings() if settings is None else settings

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened, loaded = database, painters
        if opened is None:
            opened = await asyncio.to_thread(open_database, deployed)
        if loaded is None:
            loaded = await asyncio.to_thread(load_painters, deployed)
        async with _running(app, await make_service(deployed, loaded, opened), on_failed_warm_up):
            yield

    app = FastAPI(
        title="Fewstroke",
        summary="Text to image over OpenAI's API.",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # the page would load its script from a foreign server
        redoc_url=None,
        redirect_slashes=False,  # a redirect is no envelope, and clients may drop the body
        responses={"default": {"model": ErrorEnvelope, "description": "Any failure."}},
        middleware=[
            Middleware(RequestContextMiddleware),
            Middleware(AuthMiddleware, refuse=refuse),
            Middleware(
                RequestLimitMiddleware,
                limits=RequestLimits(
                    max_head_bytes=deployed.max_header_bytes,
                    max_body_bytes=deployed.max_body_bytes,
                    body_timeout_s=deployed.body_timeout_s,
                    max_upload_bytes=deployed.max_file_bytes,
                ),
            ),
        ],
        telemetry=TELEMETRY,
    )
    install_error_handlers(app)
    for resource in (images, plans, files, batches, models, admin, health, studio):
        app.include_router(resource.router)
    state_limits(app, deployed)
    return app


@asynccontextmanager
async def _running(
    app: FastAPI, service: Service, on_failed_warm_up: Callable[[ConfigError], None] | None
) -> AsyncIterator[None]:
    app.state.service = service
    warming = asyncio.create_task(warm_up(app, list(service.painters)))
    settle = partial(_settle, service=service, on_failure=on_failed_warm_up)
    warming.add_done_callback(settle)
    sweeping = asyncio.create_task(_sweep(service))
    runner = make_runner(service) if service.settings.run_batches else None
    app.state.runner = runner
    if runner is not None:
        runner.start()
    yield
    service.readiness.end()
    if runner is not None:
        await runner.close()
    warming.remove_done_callback(settle)  # a warm-up that we stop has not failed
    warming.cancel()
    sweeping.cancel()
    await service.host.close()
    await service.planner.close()
    await asyncio.gather(warming, sweeping, return_exceptions=True)
    await asyncio.to_thread(service.database.close)


async def make_service(
    settings: Settings, painters: Mapping[str, Painter], database: Database
) -> Service:
    """Put together what a running server holds, and start the engine's thread.

    Args:
        settings: How it is deployed.
        painters: Loaded models by variant, the default first.
        database: The open database.

    Returns:
        The service. ConfigError says that its storage cannot be used, or that it would listen
        where others reach it though there are no keys.
    """
    store = BlobStore(settings.storage_location)
    await store.check()
    keys = KeyRing(database)
    num_working, num_made = await asyncio.to_thread(keys.count)
    check_host(settings, num_working)
    secret = await asyncio.to_thread(shared_secret, database, "links")
    metrics = Metrics()
    limits = Limits(
        max_waiting=settings.queue_capacity,
        batch_share=settings.batch_share,
        max_age_s=settings.max_queue_age_s,
        num_rows=settings.rows_per_pass,
    )
    intake = Intake(painters, limits)
    metrics.watch(intake.state, intake.counters)
    metrics.watch_backends(intake.variants)
    host = EngineHost(Engine(intake, metrics.count_tick))
    return Service(
        settings=settings,
        host=host,
        database=database,
        store=store,
        files=Files(database, store, max_bytes=settings.max_file_bytes),
        batches=Batches(database),
        keys=keys,
        needs_key=num_made > 0,
        quotas=Quotas(database),
        answers=AnswerBook(database, store, lifetime_s=settings.idempotency_lifetime_s),
        links=PictureLinks(store, secret, lifetime_s=settings.url_lifetime_s),
        metrics=metrics,
        refresher=Refresher(
            host, ReleaseShelf(settings.releases_folder), partial(load_painter, settings)
        ),
        planner=make_planner(settings),
    )


def make_server(app: FastAPI, settings: Settings) -> DrainingServer:
    """Build the server around an application.

    Args:
        app: The application.
        settings: How it is deployed.

    Returns:
        A server that finishes what it has accepted before it ends.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        http="h11",  # bounds the head of a request
        h11_max_incomplete_event_size=settings.max_header_bytes,
        server_header=False,
    )
    return DrainingServer(config, app, drain_timeout_s=float(settings.drain_timeout_s))


def check_webhooks(settings: Settings) -> None:
    """Refuse a key for webhooks that is none, before a model is loaded.

    Args:
        settings: May hold one; the ConfigError says what is wrong with it.
    """
    if settings.webhook_secret is not None:
        key_of(settings.webhook_secret.get_secret_value())


def open_database(settings: Settings) -> Database:
    """Open the database that the settings name, and bring it up to date.

    Args:
        settings: Give its URL.

    Returns:
        The database. ConfigError says why it cannot be used.
    """
    database = Database(settings.database_location)
    database.migrate()
    return database


def load_painters(settings: Settings) -> dict[str, Painter]:
    """Load the model that the settings name, in all variants that are to be served.

    Args:
        settings: Give path, variants, device and number format.

    Returns:
        The variants by name, the default first. What is wrong with the model is raised as
        `TextToImage.load` says.
    """
    with large_imports():
        import_module("pipelines.rows")
    shelf = ReleaseShelf(settings.releases_folder)
    first = load_painter(settings, settings.model, settings.variant)
    painters = {first.info.variant: first}
    for name in served_variants(settings, first.info):
        painters[name] = load_painter(settings, settings.model, name)
    for variant, name in shelf.active().items():
        release = shelf.find(name)
        if release.model == first.info.name:
            painters[variant] = load_painter(settings, shelf.verify(release), variant)
    return painters


def load_painter(settings: Settings, folder: str | Path, variant: str | None) -> Painter:
    """Load one variant of a model.

    Args:
        settings: Give device, number format and backend.
        folder: A checkpoint folder, or a hub name.
        variant: Which variant; None for the folder's default.

    Returns:
        A model that is ready to paint. What is wrong with it is raised as `TextToImage.load` says.
    """
    from pipelines.rows import RowPainter
    from pipelines.text_to_image import TextToImage

    model = TextToImage.load(
        folder,
        variant=variant,
        device=settings.device,
        dtype=settings.dtype,
        backend=settings.backend,
        cache_dir=settings.cache_dir,
    )
    return RowPainter(model)


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
        for info in service.models.values():
            log.info("ready", model=info.name, variant=info.variant, revision=info.revision)
        return
    reason = ConfigError(f"The model cannot paint: {failure}")
    service.readiness.reason = reason.message
    log.error("warm_up_failed", reason=reason.message)
    if on_failure is not None:
        on_failure(reason)


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(SWEEP_EVERY_S)
        # what cannot be swept now is swept next time
        with suppress(CapacityError):
            num_hours = await service.links.sweep(time.time())
            num_answers = await service.answers.sweep()
            log.debug("swept", num_hours=num_hours, num_answers=num_answers)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fewstroke")
    except PackageNotFoundError:
        return "0+unknown"
