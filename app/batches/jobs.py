"""A worker: takes lines of batches, has them answered, writes the results; and all around it.

    lines     claim what fits, answer it through the same code as live requests, write results
    stages    check new batches, end finished ones, clean up
    heartbeat keep what is held, drop what was lost
    reclaim   take back what silent workers held
    webhooks  tell who wants to know

All of it may die at any moment. Nothing is known only here: what is in memory was either promised
to nobody, or stands in the database and is done again by somebody else.
"""

import asyncio
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

import structlog

from app.batches.item_results import ItemResult
from app.batches.leases import Item, Leases
from app.batches.leftovers import Leftovers
from app.batches.lines import (
    Answer,
    Finished,
    Postponed,
    give_up,
    read_lines,
    to_call,
    to_finished,
    to_outcome,
)
from app.batches.output import write_segment
from app.batches.stages import Stages
from app.batches.webhooks import WebhookSender
from app.storage.files import Files
from core.errors import CapacityError

NUM_SENDERS = 4
"""Webhooks that are sent at a time: somebody slow keeps one of them busy for half a minute."""

POLL_S = 0.5
"""How often a worker with nothing to do looks for work that others have accepted."""

MAX_HEARTBEAT_S = 2.0
"""How long a cancelled batch may go on being painted."""

GATHER_S = 0.02
"""How long a finished line waits for others of the same forward pass, to be written with them."""

BUG_PAUSE_S = 5.0
SWEEP_EVERY_S = 60.0

Key = tuple[str, int]
P = ParamSpec("P")
Result = TypeVar("Result")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobTools:
    """What a worker works with.

    Attributes:
        files: Where files are.
        leases: Where lines are taken from and results are written.
        stages: What happens to whole batches.
        leftovers: Removes what ended batches left.
        sender: Tells who wants to know; None where there is no key to sign with.
        answer: Answers a request as its endpoint would.
    """

    files: Files
    leases: Leases
    stages: Stages
    leftovers: Leftovers
    sender: WebhookSender | None
    answer: Answer


class JobRunner:
    """Works on batches until it is closed.

    Args:
        tools: What it works with.
        concurrency: Lines that are answered at a time.
        max_tries: Workers that a line may take down before it is given up.
        public_url: What the address of a file begins with.
    """

    def __init__(
        self, tools: JobTools, *, concurrency: int, max_tries: int, public_url: str = ""
    ) -> None:
        self._tools = tools
        self._concurrency = concurrency
        self._max_tries = max_tries
        self._public_url = public_url
        self._running: dict[Key, _Running] = {}
        self._unwritten: list[Finished] = []
        self._must_be_idle = False
        self._takes_more = True
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(6 + NUM_SENDERS, thread_name_prefix="jobs")

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        steps = [
            self._work_on_lines,
            self._do_stage,
            self._keep_leases,
            self._reclaim,
            self._sweep,
        ]
        if self._tools.sender is not None:
            steps += [self._send_webhook] * NUM_SENDERS
        self._tasks = [asyncio.create_task(self._repeat(step)) for step in steps]

    def wake(self) -> None:
        """Look for work now, because there may be some; may be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def finish(self) -> None:
        """Take no more lines, and go on with those that were taken."""
        self._takes_more = False

    async def close(self) -> None:
        """Stop, and give back what is not finished, so that others need not wait for it."""
        self._loop = None
        self._tools.stages.stop()
        tasks = [*self._tasks, *(running.task for running in self._running.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)  # a claim under way must not be forgotten
        await asyncio.to_thread(self._tools.leases.release_all)

    async def _repeat(self, step: Callable[[], Coroutine[Any, Any, float]]) -> None:
        is_woken = step in {self._work_on_lines, self._do_stage}
        while True:
            task = asyncio.create_task(step())
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()
            pause_s = self._pause_after(task)
            if pause_s > 0 and is_woken:
                # not wait_for: on Python 3.11 it may lose a cancellation that meets the wake
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                self._wake.clear()
            elif pause_s > 0:
                await asyncio.sleep(pause_s)

    @staticmethod
    def _pause_after(task: asyncio.Task[float]) -> float:
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, CapacityError):
            log.warning("jobs_wait", code=error.code, reason=error.message)
            return error.retry_after_s
        log.error("bug", exc_info=error)
        return BUG_PAUSE_S

    async def _work_on_lines(self) -> float:
        if len(self._unwritten) < self._concurrency:  # more pile up only if they cannot be written
            await self._refill()
        if self._unwritten:  # while the engine paints what was just claimed
            await self._write()
            return 0.0
        if not self._running:
            return POLL_S
        tasks = [running.task for running in self._running.values()]
        await asyncio.wait(tasks, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(GATHER_S)
        await self._collect()
        return 0.0

    async def _refill(self) -> None:
        while self._takes_more and (free := self._concurrency - len(self._running)) > 0:
            is_idle = not self._running
            if self._must_be_idle and not is_idle:
                return
            items = await self._in_thread(self._tools.leases.claim, free, is_idle=is_idle)
            if not items:
                return
            try:
                raws = await self._in_thread(read_lines, self._tools.files, items)
            except CapacityError:
                await self._postpone([Postponed(item=i, delay_s=1.0, counts=False) for i in items])
                raise
            for item, raw in zip(items, raws, strict=True):
                task = asyncio.create_task(self._answer(item, raw))
                self._running[item.batch_id, item.line] = _Running(item=item, task=task)
            if self._must_be_idle:
                return

    async def _answer(self, item: Item, raw: bytes) -> Finished:
        if item.tries > self._max_tries:
            return give_up(item, self._max_tries)
        call = to_call(item, raw)
        with structlog.contextvars.bound_contextvars(
            request_id=call.request_id, batch=item.batch_id
        ):
            body = await self._tools.answer(call)
        return await self._in_thread(to_finished, item, body, self._tools.files, self._public_url)

    async def _collect(self) -> None:
        postponed = []
        for key in [key for key, running in self._running.items() if running.task.done()]:
            running = self._running.pop(key)
            if running.task.cancelled():  # not by us: what we cancel is no longer among these
                postponed.append(Postponed(item=running.item, delay_s=1.0, counts=False))
                continue
            error = running.task.exception()
            outcome = running.task.result() if error is None else to_outcome(running.item, error)
            if isinstance(outcome, Postponed):
                postponed.append(outcome)
            else:
                self._unwritten.append(outcome)
        await self._postpone(postponed)

    async def _postpone(self, outcomes: Sequence[Postponed]) -> None:
        for outcome in outcomes:
            await self._in_thread(
                self._tools.leases.release,
                outcome.item.batch_id,
                [outcome.item.line],
                delay_s=outcome.delay_s,
                counts=outcome.counts,
            )

    async def _write(self) -> None:
        by_batch: dict[str, list[Finished]] = defaultdict(list)
        for finished in self._unwritten:
            by_batch[finished.item.batch_id].append(finished)
        for batch_id, some in by_batch.items():
            await self._in_thread(self._write_batch, batch_id, some)
            written = {id(finished) for finished in some}
            self._unwritten = [rest for rest in self._unwritten if id(rest) not in written]

    def _write_batch(self, batch_id: str, some: Sequence[Finished]) -> None:
        contents = [finished.content for finished in some]
        path, places = write_segment(self._tools.files.store, batch_id, contents)
        taken = self._tools.leases.complete(
            batch_id,
            [
                ItemResult(
                    line=finished.item.line,
                    is_success=finished.is_success,
                    path=path,
                    start=start,
                    num_bytes=num_bytes,
                    files=finished.files,
                )
                for finished, (start, num_bytes) in zip(some, places, strict=True)
            ],
        )
        if not taken:  # the batch has ended meanwhile, and nobody will look here again
            self._tools.files.store.remove(path)

    async def _do_stage(self) -> float:
        did_something = await self._in_thread(self._tools.stages.run_next)
        if did_something:
            self._wake.set()
        return 0.0 if did_something else POLL_S

    async def _keep_leases(self) -> float:
        written_soon = {(done.item.batch_id, done.item.line) for done in self._unwritten}
        mine = {*self._running, *written_soon}
        if mine:
            held = await self._in_thread(self._tools.leases.extend, mine)
            for key in mine - held:
                if lost := self._running.pop(key, None):
                    lost.task.cancel()
        await self._in_thread(self._tools.stages.keep)
        return min(self._tools.leases.lease_s / 4, MAX_HEARTBEAT_S)

    async def _reclaim(self) -> float:
        count, self._must_be_idle = await self._in_thread(self._tools.leases.reclaim)
        if count:
            log.warning("lines_reclaimed", count=count)
            self._wake.set()
        return min(self._tools.leases.lease_s / 10, 1.0)

    async def _sweep(self) -> float:
        if await self._in_thread(self._tools.files.sweep):
            return 0.0
        leftovers, lease_s = self._tools.leftovers, self._tools.leases.lease_s
        await self._in_thread(leftovers.sweep, lease_s)
        return SWEEP_EVERY_S

    async def _send_webhook(self) -> float:
        assert self._tools.sender is not None
        return 0.0 if await self._in_thread(self._tools.sender.send_next) else POLL_S

    async def _in_thread(
        self, call: Callable[P, Result], *arguments: P.args, **options: P.kwargs
    ) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(call, *arguments, **options))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Running:
    item: Item
    task: asyncio.Task[Finished]


def worker_name() -> str:
    """Return a name that no other worker has, now or later."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid4().hex[:16]}"
