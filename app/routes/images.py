"""From words to pictures, in OpenAI's way."""

import math
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from app.access.auth import INTERNAL
from app.access.idempotency import MAX_KEY_CHARS
from app.deps import CallerDep, Service, ServiceDep, require_json
from app.images.disconnect import StreamResponse, while_connected
from app.images.generation import EVENTS, JSON, Asked, answer_once, open_stream
from app.schemas.images import (
    CompletedEvent,
    ErrorEnvelope,
    ImageRequest,
    ImageResponse,
    PartialImageEvent,
)
from core.errors import GenerationCancelledError

REPLAYED = {"Idempotent-Replayed": "true"}

router = APIRouter(prefix="/v1/images", tags=["images"])

_ERRORS = {
    400: "A field is unknown, unsupported or out of range; `param` names it.",
    401: "No API key, or none that is accepted.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    409: "The Idempotency-Key is in use, or was used for another request.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    429: "The queue is full, or the key asks too often or for too much; see Retry-After.",
    503: "Shutting down, out of memory, or too late for the caller.",
}

_STREAM: dict[str, Any] = {
    "description": "The pictures; with `stream`, server-sent events.",
    "content": {
        EVENTS: {
            "itemSchema": {
                "oneOf": [
                    {"$ref": f"#/components/schemas/{kind.__name__}"}
                    for kind in (PartialImageEvent, CompletedEvent, ErrorEnvelope)
                ]
            }
        }
    },
}


@router.post(
    "/generations",
    summary="Paint pictures from words",
    dependencies=[Depends(require_json)],
    response_model=ImageResponse,
    responses={
        200: _STREAM,
        **{
            status: {"model": ErrorEnvelope, "description": description}
            for status, description in _ERRORS.items()
        },
    },
)
async def generate_images(
    body: ImageRequest,
    request: Request,
    service: ServiceDep,
    caller: CallerDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=MAX_KEY_CHARS,
            description="A name of your choice for this request: sent again under it, the same "
            "answer comes back and nothing is painted twice.",
        ),
    ] = None,
) -> Response:
    """Paint `n` pictures and answer with all of them, or with each as it is finished.

    A caller who disconnects leaves the queue at once, or stops the work before its next step.
    """
    asked = Asked(
        body=body,
        caller=caller,
        base_url=service.settings.public_url or str(request.base_url),
        gives_up_at=_gives_up_at(request),
        idempotency_key=idempotency_key,
    )
    return await _answer(asked, request, service)


@router.head("/content/{name}", include_in_schema=False)
@router.get(
    "/content/{name}",
    summary="Fetch a picture by its link",
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {f"image/{kind}": {} for kind in ("png", "webp", "jpeg")},
        },
        403: {"model": ErrorEnvelope, "description": "The link is not signed by this service."},
        404: {"model": ErrorEnvelope, "description": "The link has expired."},
    },
)
async def fetch_image(
    name: Annotated[str, Path(max_length=80, description="Last part of the link's path.")],
    signature: Annotated[str, Query(max_length=80, description="The link's signature.")],
    service: ServiceDep,
) -> Response:
    """Answer with the picture behind a link that `response_format` `"url"` gave.

    The link is its own permission: it needs no key, works on every replica, and expires.
    """
    content, kind, remaining_s = await service.links.fetch(name, signature, now=time.time())
    headers = {
        "Cache-Control": f"private, max-age={remaining_s}, immutable",
        "Content-Disposition": f'inline; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=f"image/{kind}", headers=headers)


async def _answer(asked: Asked, request: Request, service: Service) -> Response:
    try:
        if asked.body.stream:
            stream = await while_connected(request, open_stream(asked, service))
            headers = REPLAYED if stream.is_stored else {}
            return StreamResponse(stream, service.metrics.count_disconnect, headers)
        content, is_stored = await while_connected(request, answer_once(asked, service))
    except GenerationCancelledError:
        service.metrics.count_disconnect()
        raise
    return Response(content, media_type=JSON, headers=REPLAYED if is_stored else None)


def _gives_up_at(request: Request) -> float | None:
    # OpenAI's clients tell how long they wait for the next byte
    told = request.headers.get("x-stainless-read-timeout")
    if told is None or request.scope.get(INTERNAL):
        return None
    try:
        patience_s = float(told)
    except ValueError:
        return None
    return time.monotonic() + patience_s if math.isfinite(patience_s) and patience_s > 0 else None
