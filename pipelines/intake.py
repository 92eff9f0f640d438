"""The door of the engine: takes requests in, refuses them, knows the queue, lets them out.

Everything here may be called from any thread; the engine's own thread takes its work from here.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from threading import Condition

from core.errors import (
    DeadlineError,
    GenerationCancelledError,
    QueueFullError,
    ShuttingDownError,
    UnknownNameError,
)
from pipelines.events import Event, Failed, Queued
from pipelines.orders import Counters, Job, Limits, Order, Picture, QueueState
from pipelines.painter import Painter
from pipelines.scheduling import STRETCH, FairSchedule, Lane, Rate, cost_of, step_cost_of
from pipelines.spec import GenerationSpec

UNMEASURED_RETRY_S = 5.0
"""What a refused caller is told before the first step was timed."""

MAX_PRIORITY = 3


class Intake:
    """Requests and models of one engine.

    Args:
        painters: Loaded models by the name of their variant; requests that name none get the first.
        limits: What is taken in.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        painters: Mapping[str, Painter],
        limits: Limits,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.counters = Counters()
        self.rate = Rate()
        self.decode_rate = Rate()
        self.changed = Condition()
        self._painters = dict(painters)
        self._jobs: list[Job] = []
        self._is_closing = self._is_stopped = False
        share = limits.batch_share
        shares: dict[Lane, float] = {"interactive": 1 - share, "batch": share}
        self._schedule = FairSchedule[Picture](shares, max_age_s=limits.max_age_s)

    def submit(
        self, specs: Sequence[GenerationSpec], order: Order, tell: Callable[[Event], None]
    ) -> Job:
        """Take a request in, or refuse it at once.

        Args:
            specs: Its pictures, at least one; they may differ in everything.
            order: How they are wanted.
            tell: Takes its events, from any thread; must not wait.

        Returns:
            A handle for `cancel`. A QueueFullError, DeadlineError or ShuttingDownError says that
            it was not taken now, an InputError that the model cannot paint it as asked.
        """
        painter = self.painter(order.variant)
        for spec in specs:
            painter.check(spec)
        keys = [(painter, painter.key(spec)) for spec in specs]
        with self.changed:
            demand = self._weighed(specs, keys, order)
            num_ahead, wait_s = self._num_waiting(order.lane), self._wait_s(demand)
            self._refuse(order, num_ahead, wait_s)
            job = self._take(demand, painter, tell)
            tell(Queued(num_ahead=num_ahead, wait_s=wait_s))
            self.changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """End a request whose caller left, before its next step; nothing if it has ended.

        Args:
            job: What `submit` returned.
        """
        with self.changed:
            if not job.is_ended:
                self.counters.cancelled += 1
                self.end(job, Failed(error=GenerationCancelledError("The caller left.")))

    def fail(self, job: Job, error: Exception) -> None:
        """End a request by an error; nothing if it has ended.

        Args:
            job: What `submit` returned.
            error: What it is told.
        """
        with self.changed:
            if not job.is_ended:
                self.counters.failed += 1
                self.end(job, Failed(error=error))

    def fail_all(self, error: Exception) -> None:
        """End every request that was taken.

        Args:
            error: What they are told.
        """
        with self.changed:
            for job in list(self._jobs):
                self.fail(job, error)

    def end(self, job: Job, event: Event) -> None:
        """Let a request out; the caller holds the lock and has seen that it has not ended.

        Args:
            job: The request.
            event: Its last event.
        """
        job.is_ended = True
        self._jobs.remove(job)
        for picture in job.pictures:
            if picture.steps_left:
                self._schedule.remove(picture)
        job.tell(event)
        self.changed.notify_all()

    def choose(self, budget: Callable[[Painter], float]) -> list[Picture]:
        """Return the pictures that advance now, after those whose callers gave up have left.

        Args:
            budget: What one forward pass of a model may cost, in pixels times passes.
        """
        with self.changed:
            now_s = self.clock()
            for job in [job for job in self._jobs if job.gives_up_s and now_s > job.gives_up_s]:
                waits_s = job.order.deadline_s
                self.fail(job, DeadlineError(f"Not finished within the {waits_s:g} s allowed."))
            return self._schedule.next(lambda key: budget(_painter_of(key)), now_s)

    def count_step(self, picture: Picture) -> None:
        """Note that a picture advanced; the caller holds the lock.

        Args:
            picture: A picture of a request that has not ended.
        """
        self.counters.steps += 1
        picture.steps_left -= 1
        if picture.steps_left == 0:
            self._schedule.remove(picture)

    def wait_for_work(self) -> bool:
        """Wait until there is something to do; false if no more will come."""
        with self.changed:
            self.changed.wait_for(lambda: self._jobs or self._is_stopped)
            return not self._is_stopped

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until every request that was taken has ended.

        Args:
            timeout_s: How long to wait, in seconds.

        Returns:
            Whether all have ended.
        """
        with self.changed:
            return self.changed.wait_for(lambda: not self._jobs, timeout_s)

    def refuse_new(self) -> None:
        """Take no more requests; go on with those that were taken."""
        with self.changed:
            self._is_closing = True

    def stop(self, error: Exception) -> None:
        """Take no more requests, end those that were taken, and let the engine's thread end.

        Args:
            error: What those are told.
        """
        with self.changed:
            self._is_closing = self._is_stopped = True
            self.fail_all(error)
            self.changed.notify_all()

    def swap(self, variant: str, painter: Painter) -> Painter | None:
        """Let a newly loaded model take the place of a variant, between two ticks.

        Requests that were taken before are painted to their end by the model before, whose memory
        is free when the last of them has ended.

        Args:
            variant: Name of the variant, known or new.
            painter: The new model. What is remembered of texts belongs to a model, and so is new.

        Returns:
            The model that stood there before.
        """
        with self.changed:
            before = self._painters.get(variant)
            self._painters[variant] = painter
            self.counters.swaps += 1
        return before

    def remove(self, variant: str) -> None:
        """Take no more requests for a variant; those that were taken are painted.

        Args:
            variant: Name of the variant.
        """
        with self.changed:
            self._painters.pop(variant, None)

    def painter(self, variant: str | None = None) -> Painter:
        """Return the model that new requests get.

        Args:
            variant: Its name; None for the default.

        Raises:
            UnknownNameError: If there is no such variant.
        """
        with self.changed:
            name = next(iter(self._painters)) if variant is None else variant
            if name not in self._painters:
                raise UnknownNameError("variant", name, self._painters, param="variant")
            return self._painters[name]

    def variants(self) -> dict[str, Painter]:
        """Return the models that new requests may name, the default first."""
        with self.changed:
            return dict(self._painters)

    def state(self) -> QueueState:
        """Return what waits, what runs, and when it will be done."""
        with self.changed:
            num_waiting = self._num_waiting()
            return QueueState(
                num_waiting=num_waiting,
                num_running=len(self._jobs) - num_waiting,
                backlog_s=self._backlog_s(),
            )

    def _refuse(self, order: Order, num_ahead: int, wait_s: float | None) -> None:
        if self._is_closing:
            raise ShuttingDownError("The server is shutting down.", retry_after_s=10.0)
        if num_ahead >= self.limits.max_waiting:
            self.counters.refused += 1
            backlog_s = self._backlog_s()
            raise QueueFullError(
                f"{num_ahead} requests are waiting, as many as the queue holds. "
                "Try again when Retry-After has passed.",
                retry_after_s=UNMEASURED_RETRY_S if backlog_s is None else backlog_s,
            )
        if order.deadline_s is not None and wait_s is not None and wait_s > order.deadline_s:
            self.counters.refused += 1
            raise DeadlineError(
                f"This would be done in {wait_s:.1f} s, and the caller waits for "
                f"{order.deadline_s:g} s: wait longer, ask for less, or try again later."
            )

    def _weighed(
        self, specs: Sequence[GenerationSpec], keys: Sequence[Hashable], order: Order
    ) -> "_Demand":
        cost = sum(cost_of(spec) + self._end_cost(spec) for spec in specs)
        weight = 2.0 ** max(-MAX_PRIORITY, min(MAX_PRIORITY, order.priority))
        stretched_s = STRETCH * (self.rate.seconds(cost) or 0.0) / weight
        return _Demand(
            specs=specs,
            keys=keys,
            order=order,
            cost=cost,
            weight=weight,
            due_s=self.clock() + min(stretched_s, self.limits.max_age_s),
        )

    def _take(self, demand: "_Demand", painter: Painter, tell: Callable[[Event], None]) -> Job:
        now_s, order = self.clock(), demand.order
        gives_up_s = None if order.deadline_s is None else now_s + order.deadline_s
        job = Job(order=order, painter=painter, tell=tell, arrived_s=now_s, gives_up_s=gives_up_s)
        job.pictures = [
            Picture(
                job=job,
                index=index,
                spec=spec,
                key=key,
                lane=order.lane,
                step_cost=step_cost_of(spec),
                steps_left=spec.num_steps,
                arrived_s=now_s,
                due_s=demand.due_s,
                end_cost=self._end_cost(spec),
                weight=demand.weight,
            )
            for index, (spec, key) in enumerate(zip(demand.specs, demand.keys, strict=True))
        ]
        for picture in job.pictures:
            self._schedule.add(picture)
        self._jobs.append(job)
        self.counters.requests += 1
        return job

    def _num_waiting(self, lane: Lane | None = None) -> int:
        return sum(not job.is_started and lane in {None, job.order.lane} for job in self._jobs)

    def _wait_s(self, demand: "_Demand") -> float | None:
        costs = (
            self._schedule.cost_until_done(
                demand.order.lane,
                key,
                cost=demand.cost,
                due_s=demand.due_s,
                weight=demand.weight,
            )
            for key in set(demand.keys)
        )
        return self.rate.seconds(max(costs))

    def _end_cost(self, spec: GenerationSpec) -> float:
        decode_s = self.decode_rate.seconds(float(spec.width * spec.height))
        return self.rate.cost(decode_s or 0.0)

    def _backlog_s(self) -> float | None:
        left = (picture.cost_left for job in self._jobs for picture in job.pictures)
        return self.rate.seconds(sum(left, 0.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Demand:
    """A request, weighed.

    Attributes:
        specs: Its pictures.
        keys: What each must have in common with others of a forward pass.
        order: How they are wanted.
        cost: Of all of them, in pixels times forward passes; decoding as steps would cost it.
        weight: How much of its lane it gets against others.
        due_s: When it should be done, on the engine's clock.
    """

    specs: Sequence[GenerationSpec]
    keys: Sequence[Hashable]
    order: Order
    cost: float
    weight: float
    due_s: float


def _painter_of(key: Hashable) -> Painter:
    assert isinstance(key, tuple)
    painter: Painter = key[0]
    return painter
