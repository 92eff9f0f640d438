"""One request for pictures, from its checked body to the bytes of its answer.

`answer_once` and `open_stream` are the two ways; both check, charge, take a place in the engine's
queue and write files, and both leave the engine before its next step when they are cancelled.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

import structlog

from app.access.auth import Caller
from app.access.idempotency import Claim, StoredAnswer
from app.deps import Service
from app.engine_host import Submission
from app.errors import error_body
from app.images.answers import Context, to_base64, to_completed, to_event, to_partial, to_response
from app.images.charge import Charge
from app.images.mapping import to_assignment
from app.images.plan_requests import planned
from app.schemas.formats import to_file, to_preview
from app.schemas.images import ImageData, ImageRequest
from core.errors import (
    CapacityError,
    DeadlineError,
    FewstrokeError,
    InputError,
)
from pipelines.events import Done, Event, Failed, Painted, Preview, Queued, Started
from pipelines.from_plan import revised_prompt
from pipelines.notes import spec_notes
from pipelines.orders import Order
from pipelines.scheduling import Lane
from pipelines.spec import GenerationResult

JSON = "application/json"
EVENTS = "text/event-stream"

KEEP_ALIVE_S = 15.0
"""Silence in a stream after which a comment is sent, so that nobody in between hangs up."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request, with what its headers say.

    Attributes:
        body: What is wanted.
        caller: Who wants it.
        base_url: Where the service is reached from outside, for links.
        gives_up_at: When the caller stops waiting, on the monotonic clock; None for never.
        idempotency_key: Under which the answer is kept; None for none.
        lane: Which of the engine's queues it joins.
    """

    body: ImageRequest
    caller: Caller
    base_url: str
    gives_up_at: float | None = None
    idempotency_key: str | None = None
    lane: Lane = "interactive"

    @property
    def canonical(self) -> bytes:
        """The body in one form, whatever order its fields came in."""
        return self.body.model_dump_json().encode()

    @property
    def deadline_s(self) -> float | None:
        """Seconds until the caller stops waiting."""
        return None if self.gives_up_at is None else self.gives_up_at - time.monotonic()


async def answer_once(asked: Asked, service: Service) -> tuple[bytes, bool]:
    """Paint the pictures of a request and return one answer with all of them.

    Args:
        asked: The request.
        service: Who serves it.

    Returns:
        The JSON object, and whether it was stored before. What the request cannot be served for
        is raised.
    """
    async with AsyncExitStack() as stack:
        claim = await _claim(asked, service, stack)
        if isinstance(claim, StoredAnswer):
            return claim.content, True
        content = await _paint(asked, service)
        if claim is not None:
            has_links = asked.body.response_format == "url"
            links_s = service.settings.url_lifetime_s if has_links else None
            async with _told_if_not_kept():
                await service.answers.keep(claim, content, JSON, max_lifetime_s=links_s)
        return content, False


async def open_stream(asked: Asked, service: Service) -> "Stream":
    """Take a request for a stream; what can be refused is refused here, before any byte is sent.

    Args:
        asked: The request.
        service: Who serves it.

    Returns:
        The stream, which must be closed. What the request cannot be served for is raised.
    """
    async with AsyncExitStack() as stack:
        claim = await _claim(asked, service, stack)
        if isinstance(claim, StoredAnswer):
            return Stream(service, stack.pop_all(), stored=claim.content)
        context = await prepare(asked, service)
        charge = Charge(service, asked.caller, context.assignment.cost_units)
        order = _order(asked, context)
        await charge.take()
        async with charge.given_back_on_error():
            submission = service.host.submit(context.assignment.specs, order)
        await stack.enter_async_context(submission)
        painting = _Painting(context=context, submission=submission, charge=charge, claim=claim)
        return Stream(service, stack.pop_all(), painting=painting)


class Stream:
    """The events of one request, as bytes.

    Args:
        service: Who serves it.
        stack: What must be closed at the end: the place in the engine, and the claim.
        painting: The request in the engine; None where the answer was stored.
        stored: The answer that was stored.
    """

    def __init__(
        self,
        service: Service,
        stack: AsyncExitStack,
        *,
        painting: "_Painting | None" = None,
        stored: bytes = b"",
    ) -> None:
        self._service = service
        self._stack = stack
        self._painting = painting
        self._stored = stored

    @property
    def is_stored(self) -> bool:
        """Whether this was answered before."""
        return self._painting is None

    async def close(self) -> None:
        """Leave the engine, if the request has not ended, and give an unused claim back."""
        await self._stack.aclose()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the events; an error is the last of them."""
        if self._painting is None:
            yield self._stored
            return
        completed: list[bytes] = []
        async for event in _with_keep_alive(self._painting.submission):
            try:
                chunk = await self._told(self._painting, event)
            except Exception as error:  # noqa: BLE001 - headers are gone: it must end as an event
                yield await self._failed(self._painting, error)
                return
            if isinstance(event, Painted):
                completed.append(chunk)
            if isinstance(event, Done) and self._painting.claim is not None:
                claim, content = self._painting.claim, b"".join(completed)
                async with _told_if_not_kept():
                    await self._service.answers.keep(claim, content, EVENTS)
            if chunk:
                yield chunk

    async def _told(self, painting: "_Painting", event: Event | None) -> bytes:
        context = painting.context
        wanted = context.assignment.file_format
        match event:
            case None:
                return b": keep-alive\n\n"
            case Queued() | Started():
                # as a comment: OpenAI's clients know no such events and pass over it
                name, told = type(event).__name__.lower(), json.dumps(asdict(event))
                return f": {name} {told}\n\n".encode()
            case Preview(index=index, number=number, image=image):
                content = await asyncio.to_thread(to_preview, image, wanted)
                return to_event(to_partial(context, index, number, content))
            case Painted(index=index, result=result):
                content = await asyncio.to_thread(to_file, result, wanted)
                self._count(context, result)
                return to_event(to_completed(context, index, result, content))
            case Failed(error=error):
                return await self._failed(painting, error)
        return b""

    async def _failed(self, painting: "_Painting", error: Exception) -> bytes:
        await painting.charge.give_back_for(error)
        body = error_body(error)
        code = str(body["error"]["code"])
        self._service.metrics.count_refused(code)
        if isinstance(error, FewstrokeError):
            log.warning("stream_failed", code=code, reason=error.message)
        else:
            log.error("bug", exc_info=error)
        return f"event: error\ndata: {json.dumps(body)}\n\n".encode()

    def _count(self, context: Context, result: GenerationResult) -> None:
        assignment = context.assignment
        cost = assignment.cost_units / len(assignment.specs)
        self._service.metrics.count_images(assignment.effort.variant, 1, cost, result.timings_s)


@asynccontextmanager
async def _told_if_not_kept() -> AsyncIterator[None]:
    # a finished picture is worth more than the memory of it
    try:
        yield
    except CapacityError as error:
        log.warning("answer_not_kept", code=error.code, reason=error.message)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Painting:
    context: Context
    submission: Submission
    charge: Charge
    claim: Claim | None


async def prepare(asked: Asked, service: Service) -> Context:
    """Check a request and turn it into pictures.

    Args:
        asked: The request.
        service: Who serves it.

    Returns:
        What to paint.

    Raises:
        InputError: If it asks for more than its key or this server gives.
    """
    body, settings = asked.body, service.settings
    if (body.n or 1) > settings.max_images:
        raise InputError(
            f"{body.n} pictures are too many: this server paints up to {settings.max_images} for "
            "one request.",
            param="n",
        )
    if (body.priority or 0) > asked.caller.max_priority:
        raise InputError(
            f"Priority {body.priority} is above the {asked.caller.max_priority} of this key.",
            param="priority",
        )
    body = await planned(body, service)
    assignment = await asyncio.to_thread(to_assignment, body, service.painters, settings)
    first = assignment.specs[0]
    log.info(
        "generation",
        num_images=len(assignment.specs),
        size=f"{assignment.specs[0].width}x{assignment.specs[0].height}",
        steps=assignment.specs[0].num_steps,
        variant=assignment.effort.variant,
        seed=assignment.specs[0].seed,
        cost_units=assignment.cost_units,
        key=asked.caller.id,
        user=body.user,
        safety_identifier=body.safety_identifier,
        **({"prompt": body.prompt} if settings.log_prompts else {}),
    )
    return Context(
        assignment=assignment,
        safety_identifier=body.safety_identifier or body.user or None,
        revised_prompt=revised_prompt(first),
        notes=spec_notes(first, assignment.painter.unknown_words),
    )


async def _paint(asked: Asked, service: Service) -> bytes:
    started = time.perf_counter()
    context = await prepare(asked, service)
    assignment = context.assignment
    order = _order(asked, context)
    charge = Charge(service, asked.caller, assignment.cost_units)
    await charge.take()
    async with charge.given_back_on_error():
        results = await service.host.generate(assignment.specs, order)
        painted = time.perf_counter()
        data = await _to_data(asked, context, results, service)
    finished = time.perf_counter()
    in_model_s = max(sum(result.timings_s.values()) for result in results)
    timings_s = {
        "queue": max(0.0, painted - started - in_model_s),
        "file": finished - painted,
        "total": finished - started,
    }
    response = to_response(context, results, data, timings_s)
    service.metrics.count_images(
        assignment.effort.variant, len(results), assignment.cost_units, response.timings_s
    )
    return await asyncio.to_thread(lambda: response.model_dump_json().encode())


async def _to_data(
    asked: Asked, context: Context, results: list[GenerationResult], service: Service
) -> list[ImageData]:
    wanted = context.assignment.file_format
    files = await asyncio.to_thread(lambda: [to_file(result, wanted) for result in results])
    revised, data = context.revised_prompt, []
    for result, content in zip(results, files, strict=True):
        seed = result.spec.seed
        if asked.body.response_format != "url":
            text = await asyncio.to_thread(to_base64, content)
            data.append(ImageData(b64_json=text, revised_prompt=revised, seed=seed))
            continue
        url = await service.links.publish(
            content, wanted.kind, now=time.time(), base_url=asked.base_url
        )
        data.append(ImageData(url=url, revised_prompt=revised, seed=seed))
    return data


async def _claim(
    asked: Asked, service: Service, stack: AsyncExitStack
) -> Claim | StoredAnswer | None:
    if asked.idempotency_key is None:
        return None
    return await stack.enter_async_context(
        service.answers.claim(asked.caller.id, asked.idempotency_key, asked.canonical)
    )


def _order(asked: Asked, context: Context) -> Order:
    # bytes keep coming in a stream, so that only one answer as a whole can come too late
    deadline_s = None if asked.body.stream else asked.deadline_s
    if deadline_s is not None and deadline_s <= 0:
        raise DeadlineError("The caller has stopped waiting before the work began.")
    return Order(
        lane=asked.lane,
        priority=asked.body.priority or 0,
        variant=context.assignment.effort.variant,
        num_previews=asked.body.partial_images or 0,
        deadline_s=deadline_s,
    )


async def _with_keep_alive(submission: Submission) -> AsyncIterator[Event | None]:
    # a waiting `anext` must not be cancelled by a timeout: the event would be lost
    events = aiter(submission)
    waiting: asyncio.Future[Event] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait((waiting,), timeout=KEEP_ALIVE_S)
            if not done:
                yield None
                continue
            event, waiting = waiting.result(), None
            yield event
            if isinstance(event, Done | Failed):
                return
    finally:
        if waiting is not None:
            waiting.cancel()
