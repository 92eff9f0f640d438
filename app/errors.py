"""Every failure, told the way OpenAI's clients read it.

One table maps our error tree to statuses; everything else that can go wrong in a request
(FastAPI's own 404 and 405, a body that does not parse or fit, a bug) ends in the same envelope:

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from core.errors import (
    JSON_KINDS,
    CapacityError,
    CheckpointError,
    ConfigError,
    DeadlineError,
    FewstrokeError,
    GenerationCancelledError,
    InputError,
    MissingAssetError,
    NumericsError,
    QueueFullError,
    UnknownNameError,
    UnsupportedError,
)

CLIENT_CLOSED_REQUEST = 499
"""Not in the standard; used by many servers for a caller who left. Nobody reads the answer."""

REQUEST_ID_HEADER = "x-request-id"


class ModelNotFoundError(UnknownNameError):
    """A model that this server does not serve."""

    code = "model_not_found"


class NotFoundError(InputError):
    """There is no such object, or it belongs to somebody else; nobody is told which."""

    code = "not_found"


class MissingFieldError(InputError):
    """A request without a field that it must have."""

    code = "missing_required_parameter"


class NotReadyError(CapacityError):
    """The server runs, but is not warm yet, or no more."""

    code = "not_ready"


class AuthenticationError(InputError):
    """No API key, or none that this server accepts."""

    code = "invalid_api_key"


class PermissionDeniedError(InputError):
    """The API key is good, but not for this."""

    code = "permission_denied"


class IdempotencyInUseError(CapacityError):
    """A request with this Idempotency-Key is still being worked on."""

    code = "idempotency_key_in_use"


class IdempotencyMismatchError(InputError):
    """This Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"


class RateLimitedError(CapacityError):
    """The key has asked too often in the last minute."""

    code = "rate_limit_exceeded"


class QuotaExceededError(CapacityError):
    """The key has used up its cost units for now."""

    code = "quota_exceeded"


class CostAboveQuotaError(InputError):
    """One request costs more than its key ever has at once."""

    code = "cost_above_quota"


class LinkRefusedError(InputError):
    """A link to a picture that was not signed here, or was changed."""

    code = "link_refused"


class LinkExpiredError(InputError):
    """A link to a picture whose time is over."""

    code = "link_expired"


STATUS_OF: Mapping[type[FewstrokeError], tuple[int, str]] = {
    InputError: (400, "invalid_request_error"),
    ModelNotFoundError: (404, "invalid_request_error"),
    NotFoundError: (404, "invalid_request_error"),
    UnsupportedError: (400, "invalid_request_error"),
    IdempotencyMismatchError: (409, "invalid_request_error"),
    IdempotencyInUseError: (409, "invalid_request_error"),
    RateLimitedError: (429, "rate_limit_error"),
    QuotaExceededError: (429, "rate_limit_error"),
    QueueFullError: (429, "rate_limit_error"),
    AuthenticationError: (401, "invalid_request_error"),
    PermissionDeniedError: (403, "invalid_request_error"),
    LinkRefusedError: (403, "invalid_request_error"),
    LinkExpiredError: (404, "invalid_request_error"),
    CapacityError: (503, "server_error"),
    DeadlineError: (503, "server_error"),
    GenerationCancelledError: (CLIENT_CLOSED_REQUEST, "server_error"),
    CheckpointError: (500, "server_error"),
    ConfigError: (500, "server_error"),
    MissingAssetError: (500, "server_error"),
    NumericsError: (500, "server_error"),
    FewstrokeError: (500, "server_error"),
}
"""Status and OpenAI error type by error class; the nearest ancestor in the table decides."""

_HTTP_CODES: Mapping[int, str] = {
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
    415: "unsupported_media_type",
}

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Make every failure of the app end in OpenAI's envelope.

    Args:
        app: The application to equip.
    """
    app.add_exception_handler(FewstrokeError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_body)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)


def envelope(
    message: str, *, kind: str, param: str | None, code: str | None
) -> dict[str, dict[str, str | None]]:
    """Return the body of an error as OpenAI's clients expect it.

    Args:
        message: What is wrong and the way out.
        kind: OpenAI's `type`, a family of errors.
        param: The field at fault, as a dotted path.
        code: Stable and machine-readable.

    Returns:
        The JSON object.
    """
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def status_of(error: FewstrokeError) -> tuple[int, str]:
    """Return HTTP status and OpenAI error type of one of our errors.

    Args:
        error: What was raised.

    Returns:
        The entry of the nearest ancestor in `STATUS_OF`; 503 for one that has none there but may
        pass.
    """
    nearest = next(kind for kind in type(error).__mro__ if kind in STATUS_OF)
    if nearest is FewstrokeError and error.retryable:
        return STATUS_OF[CapacityError]
    return STATUS_OF[nearest]


def error_response(
    request: Request, status: int, body: Mapping[str, object], headers: Mapping[str, str] | None
) -> Response:
    """Return an error as a response that names its request.

    Args:
        request: What failed.
        status: HTTP status.
        body: The envelope.
        headers: What else the client should know, such as Retry-After.

    Returns:
        The JSON response. It carries the request id itself, because the answer to a bug is sent
        outside all middleware.
    """
    request_id = getattr(request.state, "request_id", "")
    return JSONResponse(body, status, headers={**(headers or {}), REQUEST_ID_HEADER: request_id})


def describe_invalid(error: Mapping[str, object]) -> tuple[str, str | None, str]:
    """Turn one of pydantic's findings into words a caller can act on.

    Args:
        error: One item of `ValidationError.errors()`, its `loc` starting with "body".

    Returns:
        Message, dotted path of the field (None for the body as a whole), and error code.
    """
    loc, kind, found = error["loc"], str(error["type"]), str(error["msg"])
    path = _dotted(loc[1:]) if isinstance(loc, tuple) else ""
    if kind == "json_invalid":
        path = path.strip("[]")
        context = error.get("ctx")
        reason = context.get("error", found) if isinstance(context, Mapping) else found
        return f"The body is not valid JSON: {reason} at character {path}.", None, "invalid_json"
    if not path:
        return "The body must be one JSON object with at least a `prompt`.", None, "invalid_body"
    if kind == "missing":
        return f"`{path}` is required.", path, "missing_required_parameter"
    if kind == "extra_forbidden":
        return f"Unknown field `{path}`. See /openapi.json.", path, "unknown_parameter"
    if kind == "unsupported_value":
        return f"`{path}`: {found}", path, "unsupported_value"
    return _describe_value(path, error), path, "invalid_value"


def _describe_value(path: str, error: Mapping[str, object]) -> str:
    kind, context = str(error["type"]), error.get("ctx")
    if kind == "too_long" and isinstance(context, Mapping):
        return f"`{path}` has {context['actual_length']} entries: at most {context['max_length']}."
    shown = _shortened(error.get("input"))
    if kind in JSON_KINDS:
        return f"`{path}` must be {JSON_KINDS[kind]}, not {shown}."
    return f"`{path}`: {error['msg']}, not {shown}."


def _dotted(loc: Sequence[object]) -> str:
    """Write a path as people do: regions[2].box.x0."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).removeprefix(".")


async def refuse(request: Request, error: FewstrokeError) -> Response:
    """Turn one of our errors into its answer.

    Args:
        request: What failed.
        error: Why.

    Returns:
        The answer, with all that OpenAI's clients need to know whether and when to try again.
    """
    status, _ = status_of(error)
    headers = {}
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = "Bearer"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.CONFLICT:
        headers["x-should-retry"] = str(error.retryable).lower()
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not error.retryable:
        log.error("request_failed", code=error.code, reason=error.message)
    return error_response(request, status, error_body(error), headers)


def error_body(error: Exception) -> dict[str, dict[str, str | None]]:
    """Return the envelope of any exception, as for an event in a stream that has begun.

    Args:
        error: One of our tree; anything else is a bug, of which no detail is told.
    """
    if not isinstance(error, FewstrokeError):
        message = "Something broke in the server. Its log tells more under this request's id."
        return envelope(message, kind="server_error", param=None, code=FewstrokeError.code)
    _, kind = status_of(error)
    return envelope(error.message, kind=kind, param=error.param, code=error.code)


async def _on_our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FewstrokeError)
    return await refuse(request, error)


async def _on_invalid_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message, param, code = describe_invalid(error.errors()[0])
    body = envelope(message, kind="invalid_request_error", param=param, code=code)
    return error_response(request, HTTPStatus.BAD_REQUEST, body, None)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    says_json = "json" in request.headers.get("content-type", "")
    if says_json and isinstance(error.__cause__, RecursionError | ValueError):
        message = f"The body is not JSON that can be read: {_why_unreadable(error.__cause__)}."
        body = envelope(message, kind="invalid_request_error", param=None, code="invalid_json")
        return error_response(request, HTTPStatus.BAD_REQUEST, body, None)
    method, path = request.method, request.url.path
    message = {
        HTTPStatus.NOT_FOUND: f"There is no {path}. See /openapi.json for what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not take {method}.",
    }.get(HTTPStatus(error.status_code), error.detail)
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    code = _HTTP_CODES.get(error.status_code, "invalid_request")
    body = envelope(message, kind=kind, param=None, code=code)
    return error_response(request, error.status_code, body, error.headers)


def _why_unreadable(error: Exception) -> str:
    """Say what stops Python's reader, which FastAPI calls "an error parsing the body" alone."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "lists and objects are nested too deeply"
    return "a number has too many digits"  # the one other thing that json.loads refuses


async def _on_bug(request: Request, error: Exception) -> Response:
    request_id = getattr(request.state, "request_id", "")
    log.error("bug", request_id=request_id, exc_info=error)
    body = envelope(
        f"Something broke in the server. Its log tells more under request id {request_id}.",
        kind="server_error",
        param=None,
        code=FewstrokeError.code,
    )
    # what broke once would break again, and clients retry a 500 unless told not to
    headers = {"x-should-retry": "false"}
    return error_response(request, HTTPStatus.INTERNAL_SERVER_ERROR, body, headers)


def _shortened(value: object, limit: int = 80) -> str:
    text = ascii(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
