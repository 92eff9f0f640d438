"""The queue in front of a device: bounded, off the event loop, and it drops what nobody awaits."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Lock

import structlog

from app.generator import Generator
from core.errors import QueueFullError, ShuttingDownError
from pipelines.spec import GenerationResult, GenerationSpec

UNMEASURED_RETRY_S = 5.0
"""What a refused caller is told before the first picture was timed."""

RATE_WEIGHT = 0.3
"""Weight of the newest request in the running mean of the device's rate."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class DeviceWorker:
    """One thread that owns one device and serves requests in the order they came.

    Requests wait in a queue of fixed length; the pictures of one request are painted together.
    Cancelling the task that awaits `generate` takes a waiting request out of the queue at once
    and stops a running one before its next denoising step.

    Args:
        generator: The loaded model.
        queue_capacity: Requests that may wait behind the running one.
    """

    def __init__(self, generator: Generator, *, queue_capacity: int) -> None:
        self._generator = generator
        self._queue_capacity = queue_capacity
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._lock = Lock()
        self._waiting: dict[int, _Job] = {}
        self._running: dict[int, _Job] = {}
        self._rate: float | None = None
        self._closing = False

    async def generate(self, specs: Sequence[GenerationSpec]) -> list[GenerationResult]:
        """Paint the pictures of one request when its turn comes.

        Args:
            specs: The pictures, alike in size and step count.

        Returns:
            One result per spec, in order. QueueFullError and ShuttingDownError say at once that
            the request was not taken.
        """
        job = self._admit(specs)
        future = self._thread.submit(self._paint, job)
        try:
            return await asyncio.wrap_future(future)
        finally:
            job.cancelled.set()
            with self._lock:
                self._waiting.pop(id(job), None)

    def backlog_s(self) -> float | None:
        """Return how long the accepted work will take at the measured rate, in seconds.

        None until a first request was timed.
        """
        with self._lock:
            return self._backlog_s()

    @property
    def num_waiting(self) -> int:
        """Requests that wait behind the running one."""
        with self._lock:
            return len(self._waiting)

    async def close(self) -> None:
        """Take no more work, stop what runs before its next step, and end the thread."""
        with self._lock:
            self._closing = True
            for job in (*self._waiting.values(), *self._running.values()):
                job.cancelled.set()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _admit(self, specs: Sequence[GenerationSpec]) -> "_Job":
        job = _Job(specs=tuple(specs))
        with self._lock:
            if self._closing:
                raise ShuttingDownError("The server is shutting down.", retry_after_s=10.0)
            if len(self._waiting) >= self._queue_capacity:
                backlog_s = self._backlog_s()
                raise QueueFullError(
                    f"{len(self._waiting)} requests are waiting, as many as the queue holds. "
                    "Try again when Retry-After has passed.",
                    retry_after_s=UNMEASURED_RETRY_S if backlog_s is None else backlog_s,
                )
            self._waiting[id(job)] = job
        return job

    def _paint(self, job: "_Job") -> list[GenerationResult]:
        with self._lock:
            self._waiting.pop(id(job), None)
            self._running[id(job)] = job
        started = time.perf_counter()
        try:
            results = self._generator.generate(
                job.specs, on_step=job.count_step, is_cancelled=job.cancelled.is_set
            )
            self._measure(job, time.perf_counter() - started)
        finally:
            with self._lock:
                del self._running[id(job)]
        return results

    def _measure(self, job: "_Job", seconds: float) -> None:
        rate = job.cost / max(seconds, 1e-6)
        with self._lock:
            before = rate if self._rate is None else self._rate
            self._rate = (1 - RATE_WEIGHT) * before + RATE_WEIGHT * rate

    def _backlog_s(self) -> float | None:
        if self._rate is None:
            return None
        jobs = (*self._waiting.values(), *self._running.values())
        return sum(job.remaining_cost for job in jobs) / self._rate


@dataclass(kw_only=True, slots=True)
class _Job:
    specs: tuple[GenerationSpec, ...]
    cancelled: Event = field(default_factory=Event)
    done: float = 0.0

    @property
    def cost(self) -> float:
        return sum(map(cost_of, self.specs))

    @property
    def remaining_cost(self) -> float:
        return self.cost * (1 - self.done)

    def count_step(self, num_done: int, num_steps: int) -> None:
        self.done = num_done / num_steps


def cost_of(spec: GenerationSpec) -> float:
    """Return what a picture costs, in pixels times forward passes.

    Args:
        spec: The picture; guidance doubles its forward passes.
    """
    forwards_per_step = 1 if spec.guidance_scale == 1 else 2
    return float(spec.width * spec.height * spec.num_steps * forwards_per_step)
