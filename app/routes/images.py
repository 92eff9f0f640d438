"""From words to pictures, in OpenAI's way."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import structlog
from fastapi import APIRouter, Depends, Request

from app.deps import Service, ServiceDep, require_json
from app.mapping import to_response, to_specs
from app.schemas import ErrorEnvelope, ImageRequest, ImageResponse
from core.errors import GenerationCancelledError, ShuttingDownError
from pipelines.png import to_png_bytes
from pipelines.spec import GenerationResult

Answer = TypeVar("Answer")

router = APIRouter(prefix="/v1/images", tags=["images"])
log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@router.post(
    "/generations",
    summary="Paint pictures from words",
    dependencies=[Depends(require_json)],
    responses={
        status: {"model": ErrorEnvelope, "description": description}
        for status, description in {
            400: "A field is unknown, unsupported or out of range; `param` names it.",
            404: "No such model.",
            413: "The body is too large.",
            415: "The body is not declared as JSON.",
            429: "The queue is full; Retry-After says when it will have been worked off.",
            503: "Shutting down, or out of memory.",
        }.items()
    },
)
async def generate_images(
    body: ImageRequest, request: Request, service: ServiceDep
) -> ImageResponse:
    """Paint `n` pictures and answer with all of them.

    A caller who disconnects leaves the queue at once, or stops the work before its next step.
    """
    return await _while_connected(request, _generate(body, service))


async def _generate(body: ImageRequest, service: Service) -> ImageResponse:
    started = time.perf_counter()
    specs = await asyncio.to_thread(to_specs, body, service.generator, service.settings)
    log.info(
        "generation",
        num_images=len(specs),
        size=f"{specs[0].width}x{specs[0].height}",
        steps=specs[0].num_steps,
        seed=specs[0].seed,
        user=body.user,
        safety_identifier=body.safety_identifier,
        **({"prompt": body.prompt} if service.settings.log_prompts else {}),
    )
    results = await service.worker.generate(specs)
    painted = time.perf_counter()
    pngs = await asyncio.to_thread(_to_pngs, results)
    finished = time.perf_counter()
    in_model_s = sum(results[0].timings_s.values())
    timings_s = {
        "queue": max(0.0, painted - started - in_model_s),
        "png": finished - painted,
        "total": finished - started,
    }
    return to_response(results, pngs, service.generator, timings_s)


def _to_pngs(results: Sequence[GenerationResult]) -> list[bytes]:
    return [to_png_bytes(result) for result in results]


async def _while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    # a race between the work and the caller's patience; whoever loses is cancelled
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_until_disconnected(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GenerationCancelledError("The caller left before the picture was finished.")
        return task.result()
    except asyncio.CancelledError as error:
        # only the server cancels a request: when its time to finish what was accepted is over
        raise ShuttingDownError(
            "The server is shutting down and stopped before the picture was finished.",
            retry_after_s=10.0,
        ) from error
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.wait((task, watch))


async def _until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
