"""The engine's place in the service: its thread, and the bridge from it to asyncio.

    async with host.submit(specs, num_previews=2) as request:
        async for event in request:          # Queued, Started, StepDone, Preview, Painted
            ...                              # the last one is Done or Failed

    results = await host.generate(specs)     # the same, for who wants only the end

Leaving the block, or cancelling the task that awaits, takes the request out of the engine before
its next denoising step.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Self

from core.errors import ShuttingDownError
from pipelines.engine import Engine
from pipelines.events import Done, Event, Failed
from pipelines.intake import Intake
from pipelines.orders import Job, Order, QueueState
from pipelines.spec import GenerationResult, GenerationSpec


class EngineHost:
    """Owns the one thread that computes, and takes requests from the event loop.

    Args:
        engine: The engine; from here on nobody else calls its `tick`.
    """

    def __init__(self, engine: Engine) -> None:
        self.intake = engine.intake
        self._thread = Thread(target=engine.run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, specs: Sequence[GenerationSpec], order: Order | None = None) -> "Submission":
        """Take a request in, or refuse it at once; never waits.

        Must be called on the event loop's thread.

        Args:
            specs: The pictures of one request; they may differ in everything.
            order: Lane, priority, variant, previews, deadline; None for the defaults.

        Returns:
            The request: an async iterator of its events and a context manager. An InputError,
            QueueFullError, DeadlineError or ShuttingDownError says why it was not taken.
        """
        return Submission(self.intake, specs, order or Order())

    async def generate(
        self, specs: Sequence[GenerationSpec], order: Order | None = None
    ) -> list[GenerationResult]:
        """Take a request in and wait for all of its pictures.

        Args:
            specs: The pictures of one request.
            order: As for `submit`.

        Returns:
            One result per spec, in order. What ended the request otherwise is raised.
        """
        async with self.submit(specs, order) as request:
            return await request.results()

    def state(self) -> QueueState:
        """Return what waits, what runs, and when it will be done."""
        return self.intake.state()

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for the accepted ones.

        Args:
            timeout_s: How long to wait, in seconds.

        Returns:
            Whether everything was finished in time.
        """
        self.intake.refuse_new()
        return await asyncio.to_thread(self.intake.wait_until_idle, timeout_s)

    async def close(self) -> None:
        """Take no more requests, end the accepted ones before their next step, end the thread."""
        self.intake.stop(
            ShuttingDownError(
                "The server is shutting down and stopped before the picture was finished.",
                retry_after_s=10.0,
            )
        )
        await asyncio.to_thread(self._thread.join)


class Submission:
    """One request in the engine: iterate over its events, or await its results.

    Args:
        intake: Where requests are taken in.
        specs: The pictures.
        order: How they are wanted.
    """

    def __init__(self, intake: Intake, specs: Sequence[GenerationSpec], order: Order) -> None:
        self._intake = intake
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._job: Job = intake.submit(specs, order, self._tell)

    def cancel(self) -> None:
        """Leave the engine before the next step; nothing happens if the request has ended."""
        self._intake.cancel(self._job)

    async def results(self) -> list[GenerationResult]:
        """Wait for the end.

        Returns:
            All pictures, in the order they were asked for. What ended the request otherwise is
            raised.
        """
        while True:
            match await self._events.get():
                case Failed(error=error):
                    raise error
                case Done(results=results):
                    return list(results)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over the events until Done or Failed, which is the last one."""
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, Done | Failed):
                return

    async def __aenter__(self) -> Self:
        """Enter a block whose end takes the request out of the engine."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the request out of the engine if it has not ended."""
        self.cancel()

    def _tell(self, event: Event) -> None:
        # Called on the engine's thread. A loop that is closed has nobody left who listens.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
