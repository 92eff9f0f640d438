"""What a running server tells: a request id on everything, one structured log line a request."""

import logging
import re
import sys
import time
from collections.abc import MutableMapping
from typing import TextIO
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import REQUEST_ID_HEADER
from app.settings import Settings

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that machines ask every few seconds; their log lines are of level debug."""

_CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class RequestContextMiddleware:
    """Gives every request an id and one log line.

    Plain ASGI on purpose: FastAPI's decorator for middleware hides a client's disconnect from
    the routes behind it, and then abandoned work is never stopped.

    Args:
        app: What comes behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection.

        Args:
            scope: ASGI's description of the request.
            receive: Where the body comes from.
            send: Where the answer goes.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                seconds = time.perf_counter() - started
                service = getattr(scope["app"].state, "service", None) if "app" in scope else None
                if service is not None:
                    route = getattr(scope.get("route"), "path", "other")
                    service.metrics.count_request(route, scope["method"], status, seconds)
                is_probe = scope["path"] in PROBES
                log.log(
                    logging.DEBUG if is_probe else logging.INFO,
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    duration_ms=round(1000 * seconds, 1),
                )


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Send every log line of this process through one format: ours and the libraries'.

    Args:
        settings: Gives level and format.
        stream: Where lines go; standard error by default.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    as_json = settings.log_format == "json"
    ending: list[structlog.typing.Processor] = (
        [_tracebacks_without_values(), structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _drop_colour_copy],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # its steps are no news at every start
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)


def _tracebacks_without_values() -> structlog.typing.Processor:
    # local variables would carry prompts into the log
    return structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )


def _drop_colour_copy(
    _logger: object, _method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    # uvicorn hands its messages over twice, once with terminal colours
    event.pop("color_message", None)
    return event


def _is_news(record: logging.LogRecord) -> bool:
    # uvicorn logs a bug's traceback again, without its request id
    return "Exception in ASGI application" not in str(record.msg)


def _request_id(offered: str | None) -> str:
    if offered and _CLIENT_REQUEST_ID.fullmatch(offered):
        return offered
    return f"req_{uuid4().hex}"
