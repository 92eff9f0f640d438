"""From finished pictures to what goes over the wire: one JSON object, or events of a stream."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from app.images.mapping import Assignment
from app.schemas.formats import notes_on
from app.schemas.images import (
    CompletedEvent,
    ImageData,
    ImageResponse,
    InputTokensDetails,
    OutputTokensDetails,
    PartialImageEvent,
    Usage,
)
from pipelines.spec import GenerationResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What answers need to know beside the pictures.

    Attributes:
        assignment: What was painted.
        safety_identifier: The end user, as the request names them.
        revised_prompt: What was painted in words, where that is not the prompt itself.
        notes: What the service did otherwise than asked.
    """

    assignment: Assignment
    safety_identifier: str | None = None
    revised_prompt: str | None = None
    notes: tuple[str, ...] = ()


def to_response(
    context: Context,
    results: Sequence[GenerationResult],
    data: Sequence[ImageData],
    timings_s: Mapping[str, float],
) -> ImageResponse:
    """Turn finished pictures into the answer.

    Args:
        context: What was asked for.
        results: What the model painted, in the order of the seeds.
        data: The same pictures as they travel.
        timings_s: Seconds that the service itself took, by stage.

    Returns:
        The body of the answer.
    """
    first, assignment = results[0], context.assignment
    return ImageResponse(
        created=int(time.time()),
        data=list(data),
        output_format=assignment.file_format.kind,
        quality=assignment.effort.quality,
        size=size_of(assignment),
        safety_identifier=context.safety_identifier,
        usage=usage_of(assignment, len(results)),
        model=first.model,
        revision=first.revision,
        steps=first.spec.num_steps,
        guidance=first.spec.guidance_scale,
        guidance_rescale=first.spec.guidance_rescale,
        scheduler=first.spec.scheduler,
        variant=assignment.effort.variant,
        cost_units=assignment.cost_units,
        timings_s=_rounded({**_longest(results), **timings_s}),
        fallbacks=fallbacks_of(context, results),
        plan=plan_of(first),
    )


def to_completed(
    context: Context, index: int, result: GenerationResult, content: bytes
) -> CompletedEvent:
    """Turn one finished picture into its event.

    Args:
        context: What was asked for.
        index: Which picture of the request, from 0.
        result: What the model painted.
        content: The file.

    Returns:
        The event.
    """
    assignment = context.assignment
    return CompletedEvent(
        b64_json=to_base64(content),
        image_index=index,
        created_at=int(time.time()),
        size=size_of(assignment),
        quality=assignment.effort.quality,
        output_format=assignment.file_format.kind,
        safety_identifier=context.safety_identifier,
        usage=usage_of(assignment, 1),
        revised_prompt=context.revised_prompt,
        seed=result.spec.seed,
        model=result.model,
        revision=result.revision,
        variant=assignment.effort.variant,
        steps=result.spec.num_steps,
        guidance=result.spec.guidance_scale,
        guidance_rescale=result.spec.guidance_rescale,
        scheduler=result.spec.scheduler,
        timings_s=_rounded(result.timings_s),
        fallbacks=fallbacks_of(context, [result]),
        plan=plan_of(result),
    )


def plan_of(result: GenerationResult) -> dict[str, Any] | None:
    """Return the scene plan that a picture was painted by; None if it was painted without.

    Args:
        result: The picture.
    """
    return json.loads(result.spec.plan) if result.spec.plan else None


def to_partial(context: Context, index: int, number: int, content: bytes) -> PartialImageEvent:
    """Turn a preview into its event.

    Args:
        context: What was asked for.
        index: Which picture of the request, from 0.
        number: Which preview of that picture, from 0.
        content: The file.

    Returns:
        The event.
    """
    return PartialImageEvent(
        b64_json=to_base64(content),
        partial_image_index=number,
        image_index=index,
        created_at=int(time.time()),
        size=size_of(context.assignment),
        quality=context.assignment.effort.quality,
        output_format=context.assignment.file_format.kind,
    )


def to_event(event: CompletedEvent | PartialImageEvent) -> bytes:
    """Write an event as OpenAI's clients read it.

    Args:
        event: The event.
    """
    return sse(event.type, event)


def sse(name: str, data: BaseModel) -> bytes:
    """Write one server-sent event; JSON without line breaks is one line of data.

    Args:
        name: Name of the event.
        data: Its content.
    """
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n".encode()


def to_base64(content: bytes) -> str:
    """Write bytes as text.

    Args:
        content: The bytes.
    """
    return base64.b64encode(content).decode("ascii")


def usage_of(assignment: Assignment, num_images: int) -> Usage:
    """Count the tokens of a request.

    Args:
        assignment: What was painted.
        num_images: How many of its pictures to count.
    """
    text, image = assignment.text_tokens, num_images * assignment.image_tokens
    return Usage(
        input_tokens=text,
        output_tokens=image,
        total_tokens=text + image,
        input_tokens_details=InputTokensDetails(text_tokens=text, image_tokens=0),
        output_tokens_details=OutputTokensDetails(image_tokens=image, text_tokens=0),
    )


def size_of(assignment: Assignment) -> str:
    """Return the size of the pictures as text.

    Args:
        assignment: What is painted.
    """
    return f"{assignment.specs[0].width}x{assignment.specs[0].height}"


def fallbacks_of(context: Context, results: Sequence[GenerationResult]) -> list[str]:
    """Name everything that was done otherwise than asked, once each.

    Args:
        context: What was asked for.
        results: The pictures.
    """
    painted = [note for result in results for note in result.fallbacks]
    written = [
        note for result in results for note in notes_on(result, context.assignment.file_format)
    ]
    return list(dict.fromkeys([*context.notes, *painted, *written]))


def _longest(results: Sequence[GenerationResult]) -> dict[str, float]:
    stages = dict.fromkeys(stage for result in results for stage in result.timings_s)
    return {stage: max(result.timings_s.get(stage, 0.0) for result in results) for stage in stages}


def _rounded(timings_s: Mapping[str, float]) -> dict[str, float]:
    return {name: round(seconds, 4) for name, seconds in timings_s.items()}
