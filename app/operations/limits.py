"""How large a request may be, and how long its body may take."""

import asyncio
import time
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import envelope, error_response

UPLOADS = frozenset({"/v1/files"})
"""Paths whose bodies are files, and may be large."""

FORM_BYTES = 65_536
"""What a form has beside its file."""

MIN_UPLOAD_BYTES_PER_S = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """What is let through.

    Attributes:
        max_head_bytes: Largest head: first line and headers.
        max_body_bytes: Largest body.
        body_timeout_s: Seconds in which a body must have arrived.
        max_upload_bytes: Largest body of an upload; it has time in proportion.
    """

    max_head_bytes: int
    max_body_bytes: int
    body_timeout_s: float
    max_upload_bytes: int


class RequestLimitMiddleware:
    """Refuses requests that are too large, bodies before they are read, in OpenAI's envelope.

    The web framework's own limit answers in plain text, which OpenAI's clients cannot read.

    Args:
        app: What comes behind.
        limits: What is let through.
    """

    def __init__(self, app: ASGIApp, limits: RequestLimits) -> None:
        self._app = app
        self._limits = limits

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
        max_head = self._limits.max_head_bytes
        if _head_bytes(scope) > max_head:
            reason = f"The head is larger than the {max_head} bytes this server takes."
            await _refuse(431, reason, "head_too_large", scope)(scope, receive, send)
            return
        max_bytes, timeout_s = self._body_limits(scope)
        reason = f"The body is larger than the {max_bytes} bytes this server takes."
        late = f"The body did not arrive within the {timeout_s:g} s that it gets."
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > max_bytes:
            await _refuse(413, reason, "body_too_large", scope)(scope, receive, send)
            return
        received, is_whole = 0, False
        give_up_at = time.monotonic() + timeout_s

        async def receive_within_limit() -> Message:
            nonlocal received, is_whole
            if is_whole:  # what is still to come is a disconnect, whenever that may be
                return await receive()
            try:
                async with asyncio.timeout(give_up_at - time.monotonic()):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, late, {"Connection": "close"}) from error
            received += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if received > max_bytes:
                raise HTTPException(413, reason, {"Connection": "close"})
            return message

        await self._app(scope, receive_within_limit, send)

    def _body_limits(self, scope: Scope) -> tuple[int, float]:
        limits = self._limits
        if scope["path"] not in UPLOADS:
            return limits.max_body_bytes, limits.body_timeout_s
        slow_s = limits.max_upload_bytes / MIN_UPLOAD_BYTES_PER_S
        return limits.max_upload_bytes + FORM_BYTES, limits.body_timeout_s + slow_s


def _head_bytes(scope: Scope) -> int:
    # uvicorn bounds a head that is still arriving; one that came in one piece is bounded here
    line = len(scope["raw_path"]) + len(scope["query_string"])
    return line + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def _refuse(status: int, reason: str, code: str, scope: Scope) -> Response:
    body = envelope(reason, kind="invalid_request_error", param=None, code=code)
    return error_response(Request(scope), status, body, {"Connection": "close"})
