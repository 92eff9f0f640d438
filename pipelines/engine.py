"""Step-level continuous batching: requests join, advance together and leave between any two steps.

Read `Engine.tick` first: begin who is new, one forward pass for rows of one kind, decode who is
done. No torch here; what a step is, the painter knows (`pipelines/rows.py`).
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import Condition
from typing import Any

from PIL import Image

from core.errors import (
    DeadlineError,
    DeviceMemoryError,
    GenerationCancelledError,
    QueueFullError,
    ShuttingDownError,
    UnknownNameError,
)
from pipelines.events import Done, Event, Failed, Painted, Preview, Queued, Started, StepDone
from pipelines.orders import Counters, Job, Limits, Order, Picture, QueueState, Tick
from pipelines.painter import Painter
from pipelines.scheduling import STRETCH, FairSchedule, Lane, Rate, cost_of, step_cost_of
from pipelines.spec import GenerationResult, GenerationSpec

UNMEASURED_RETRY_S = 5.0
"""What a refused caller is told before the first step was timed."""

MAX_PRIORITY = 3

TILED = "Decoded in tiles, because the device had no memory for the whole picture: may show seams."


class Engine:
    """Paints what it is given, a step at a time.

    One thread calls `run` (or `tick`); every other method may be called from any thread.

    Args:
        painters: Loaded models by the name of their variant; requests that name none get the first.
        limits: What is taken in, and how much goes through a network together.
        on_tick: Told about every tick, for metrics.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        painters: Mapping[str, Painter],
        *,
        limits: Limits | None = None,
        on_tick: Callable[[Tick], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limits = limits or Limits()
        self.counters = Counters()
        self._painters = dict(painters)
        self._on_tick = on_tick
        self._clock = clock
        self._changed = Condition()
        self._jobs: list[Job] = []
        self._painted: list[Picture] = []
        self._rate = Rate()
        self._step_budget = self.limits.step_budget
        self._is_closing = self._is_stopped = False
        share = self.limits.batch_share
        shares: dict[Lane, float] = {"interactive": 1 - share, "batch": share}
        self._schedule = FairSchedule[Picture](shares, max_age_s=self.limits.max_age_s)

    def run(self) -> None:
        """Work until `stop` is called."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._is_stopped)
                if self._is_stopped:
                    return
            self.tick()

    def tick(self) -> bool:
        """Begin who is new, ask the network once for rows of one kind, decode who is done.

        Returns:
            Whether there was anything to do.
        """
        started_s = self._clock()
        with self._changed:
            self._give_up(started_s)
            chosen = self._schedule.next(self._step_budget, started_s)
        begun = [picture for picture in chosen if self._begin(picture)]
        advanced = [
            picture
            for picture, prediction in self._predict(begun)
            if self._advance(picture, prediction)
        ]
        num_decoded = self._retire()
        if not chosen and not num_decoded:
            return False
        tick = Tick(
            num_rows=len(advanced),
            num_decoded=num_decoded,
            cost=sum(picture.step_cost for picture in advanced),
            seconds=self._clock() - started_s,
        )
        with self._changed:
            self._rate.measure(tick.cost, tick.seconds)
        if self._on_tick:
            self._on_tick(tick)
        return True

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
        cost = sum(map(cost_of, specs))
        with self._changed:
            num_ahead, wait_s = self._num_waiting(order.lane), self._wait_s(cost)
            self._refuse(order, num_ahead, wait_s)
            job = self._take(specs, keys, order, painter, tell)
            tell(Queued(num_ahead=num_ahead, wait_s=wait_s))
            self._changed.notify_all()
        return job

    def cancel(self, job: Job, error: Exception | None = None) -> None:
        """End a request before its next step; nothing happens if it has ended.

        Args:
            job: What `submit` returned.
            error: What it is told; None for a caller who left.
        """
        with self._changed:
            if not job.is_ended:
                self.counters.cancelled += 1
                self._end(job, Failed(error=error or GenerationCancelledError("The caller left.")))

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
        with self._changed:
            before = self._painters.get(variant)
            self._painters[variant] = painter
            self.counters.swaps += 1
        return before

    def painter(self, variant: str | None = None) -> Painter:
        """Return the model that new requests get.

        Args:
            variant: Its name; None for the default.

        Raises:
            UnknownNameError: If there is no such variant.
        """
        with self._changed:
            name = next(iter(self._painters)) if variant is None else variant
            if name not in self._painters:
                raise UnknownNameError("variant", name, self._painters, param="variant")
            return self._painters[name]

    def state(self) -> QueueState:
        """Return what waits, what runs, and when it will be done."""
        with self._changed:
            num_waiting = self._num_waiting()
            return QueueState(
                num_waiting=num_waiting,
                num_running=len(self._jobs) - num_waiting,
                backlog_s=self._wait_s(),
            )

    def refuse_new(self) -> None:
        """Take no more requests; go on with those that were taken."""
        with self._changed:
            self._is_closing = True

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until every request that was taken has ended.

        Args:
            timeout_s: How long to wait, in seconds.

        Returns:
            Whether all have ended.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout_s)

    def stop(self, error: Exception) -> None:
        """Take no more requests, end those that were taken, and let `run` return.

        Args:
            error: What those are told.
        """
        self.refuse_new()
        with self._changed:
            for job in list(self._jobs):
                self._end(job, Failed(error=error))
            self._is_stopped = True
            self._changed.notify_all()

    def _refuse(self, order: Order, num_ahead: int, wait_s: float | None) -> None:
        if self._is_closing:
            raise ShuttingDownError("The server is shutting down.", retry_after_s=10.0)
        if num_ahead >= self.limits.max_waiting:
            self.counters.refused += 1
            backlog_s = self._wait_s()
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

    def _take(
        self,
        specs: Sequence[GenerationSpec],
        keys: Sequence[Hashable],
        order: Order,
        painter: Painter,
        tell: Callable[[Event], None],
    ) -> Job:
        now_s = self._clock()
        weight = 2.0 ** max(-MAX_PRIORITY, min(MAX_PRIORITY, order.priority))
        own_s = self._rate.seconds(sum(map(cost_of, specs))) or 0.0
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
                due_s=now_s + min(STRETCH * own_s / weight, self.limits.max_age_s),
                weight=weight,
            )
            for index, (spec, key) in enumerate(zip(specs, keys, strict=True))
        ]
        for picture in job.pictures:
            self._schedule.add(picture)
        self._jobs.append(job)
        self.counters.requests += 1
        return job

    def _give_up(self, now_s: float) -> None:
        for job in [job for job in self._jobs if job.gives_up_s and now_s > job.gives_up_s]:
            error = DeadlineError(
                f"Not finished within the {job.order.deadline_s:g} s that the caller waits."
            )
            self._end(job, Failed(error=error))

    def _begin(self, picture: Picture) -> bool:
        job, started_s = picture.job, self._clock()
        if picture.row is None:
            try:
                picture.row = job.painter.begin(picture.spec)
            except Exception as error:  # noqa: BLE001  (ends the request it hit and no other)
                self._fail(picture, error)
                return False
            picture.timings_s["encode"] = self._clock() - started_s
        with self._changed:
            if not job.is_started and not job.is_ended:
                job.is_started = True
                job.tell(Started(waited_s=started_s - job.arrived_s))
        return True

    def _predict(self, pictures: Sequence[Picture]) -> list[tuple[Picture, Any]]:
        # What fails together is tried in halves, so that it fails alone.
        pictures = [picture for picture in pictures if not picture.job.is_ended]
        if not pictures:
            return []
        started_s = self._clock()
        try:
            found = pictures[0].job.painter.predict([picture.row for picture in pictures])
        except Exception as error:  # noqa: BLE001  (ends the request it hit and no other)
            if isinstance(error, DeviceMemoryError):
                self._shrink(pictures)
            if len(pictures) == 1:
                self._fail(pictures[0], error)
                return []
            middle = len(pictures) // 2
            return [*self._predict(pictures[:middle]), *self._predict(pictures[middle:])]
        seconds = self._clock() - started_s
        for picture in pictures:
            picture.timings_s["denoise"] += seconds
        self.counters.passes += 1
        return list(zip(pictures, found, strict=True))

    def _advance(self, picture: Picture, prediction: Any) -> bool:  # noqa: ANN401 - the painter's
        job = picture.job
        if job.is_ended:
            self.counters.dropped_steps += 1
            return False
        try:
            job.painter.apply(picture.row, prediction)
            is_previewed = picture.is_previewed(picture.num_done + 1)
            image = job.painter.preview(picture.row) if is_previewed else None
        except Exception as error:  # noqa: BLE001  (ends the request it hit and no other)
            self._fail(picture, error)
            return False
        with self._changed:
            if job.is_ended:
                return True
            self.counters.steps += 1
            picture.steps_left -= 1
            done = picture.num_done
            if job.order.wants_steps:
                steps = picture.spec.num_steps
                job.tell(StepDone(index=picture.index, num_done=done, num_steps=steps))
            if image is not None:
                self.counters.previews += 1
                number = picture.num_previews
                picture.num_previews += 1
                job.tell(Preview(index=picture.index, number=number, num_done=done, image=image))
            if picture.steps_left == 0:
                self._schedule.remove(picture)
                self._painted.append(picture)
        return True

    def _retire(self) -> int:
        waiting = [picture for picture in self._painted if not picture.job.is_ended]
        alike = [picture for picture in waiting if _size(picture) == _size(waiting[0])]
        chosen = alike[: self.limits.num_decoded]
        self._painted = [picture for picture in waiting if picture not in chosen]
        return sum(self._finish(*decoded) for decoded in self._decode(chosen))

    def _decode(
        self, pictures: Sequence[Picture], *, tiled: bool = False
    ) -> list[tuple[Picture, Image.Image, bool]]:
        if not pictures:
            return []
        started_s = self._clock()
        try:
            rows = [picture.row for picture in pictures]
            images = pictures[0].job.painter.decode(rows, tiled=tiled)
        except Exception as error:  # noqa: BLE001  (ends the request it hit and no other)
            if len(pictures) > 1:
                return [decoded for picture in pictures for decoded in self._decode([picture])]
            if isinstance(error, DeviceMemoryError) and not tiled:
                self._shrink(pictures)
                return self._decode(pictures, tiled=True)
            self._fail(pictures[0], error)
            return []
        for picture in pictures:
            picture.timings_s["decode"] = self._clock() - started_s
        return [(picture, image, tiled) for picture, image in zip(pictures, images, strict=True)]

    def _finish(self, picture: Picture, image: Image.Image, tiled: bool) -> bool:  # noqa: FBT001
        job, model = picture.job, picture.job.painter.info
        result = GenerationResult(
            image=image,
            spec=picture.spec,
            model=model.name,
            revision=model.revision,
            timings_s=picture.timings_s,
            fallbacks=(TILED,) if tiled else (),
        )
        with self._changed:
            if job.is_ended:
                return True
            job.results[picture.index] = result
            job.tell(Painted(index=picture.index, result=result))
            if len(job.results) == len(job.pictures):
                self.counters.finished += 1
                results = tuple(job.results[index] for index in range(len(job.pictures)))
                self._end(job, Done(results=results))
        return True

    def _shrink(self, pictures: Sequence[Picture]) -> None:
        self.counters.out_of_memory += 1
        half = sum(picture.step_cost for picture in pictures) / 2
        self._step_budget = min(self._step_budget, half)
        pictures[0].job.painter.free_memory()

    def _fail(self, picture: Picture, error: Exception) -> None:
        with self._changed:
            if not picture.job.is_ended:
                self.counters.failed += 1
                self._end(picture.job, Failed(error=error))

    def _end(self, job: Job, event: Event) -> None:
        job.is_ended = True
        self._jobs.remove(job)
        for picture in job.pictures:
            if picture.steps_left:
                self._schedule.remove(picture)
        job.tell(event)
        self._changed.notify_all()

    def _num_waiting(self, lane: Lane | None = None) -> int:
        return sum(not job.is_started and lane in {None, job.order.lane} for job in self._jobs)

    def _wait_s(self, more: float = 0.0) -> float | None:
        left = sum(picture.cost_left for job in self._jobs for picture in job.pictures)
        return self._rate.seconds(left + more)


def _size(picture: Picture) -> tuple[Painter, int, int]:
    return picture.job.painter, picture.spec.width, picture.spec.height
