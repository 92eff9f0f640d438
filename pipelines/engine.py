"""Step-level continuous batching: requests join, advance together and leave between any two steps.

Read `Engine.tick` first: begin who is new, one forward pass for rows of one kind, decode who is
done. No torch here; what a step is, the painter knows (`pipelines/rows.py`).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from PIL import Image

from core.errors import DeviceMemoryError
from pipelines.events import Done, Painted, Preview, Started, StepDone
from pipelines.intake import Intake
from pipelines.orders import Picture, Tick
from pipelines.painter import Painter
from pipelines.spec import GenerationResult

log = logging.getLogger(__name__)

NO_PREVIEW = "A preview was left out, because the device had no memory for it."
TILED = "Decoded in tiles, because the device had no memory for the whole picture: may show seams."

Made = TypeVar("Made")


class Engine:
    """Paints what the intake has, a step at a time, on one thread.

    Whatever goes wrong ends the request it hit and no other: what fails together is tried again in
    halves, down to single pictures.

    Args:
        intake: Where requests come from.
        on_tick: Told about every tick, for metrics.
    """

    def __init__(self, intake: Intake, on_tick: Callable[[Tick], None] | None = None) -> None:
        self.intake = intake
        self._budgets: WeakKeyDictionary[Painter, float] = WeakKeyDictionary()
        self._counters = intake.counters
        self._on_tick = on_tick
        self._clock = intake.clock
        self._painted: list[Picture] = []

    def run(self) -> None:
        """Work until the intake is stopped."""
        while self.intake.wait_for_work():
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001  (a bug here must leave nobody waiting)
                self.intake.fail_all(error)

    def tick(self) -> bool:
        """Begin who is new, ask the network once for rows of one kind, decode who is done.

        Returns:
            Whether there was anything to do.
        """
        self._measure_new_models()
        started_s = self._clock()
        chosen = self.intake.choose(self.budget)
        begun = [picture for picture in chosen if self._begin(picture)]
        predicted = self._predict(begun)
        num_rows = sum(self._advance(*pair) for pair in predicted)
        stepped_s = self._clock()
        decoded = self._retire()
        ended_s = self._clock()
        if not chosen and not decoded:
            return False
        tick = Tick(
            num_rows=num_rows,
            num_decoded=len(decoded),
            cost=sum((picture.step_cost for picture, _ in predicted), 0.0),
            seconds=ended_s - started_s,
        )
        with self.intake.changed:
            self.intake.rate.measure(tick.cost, stepped_s - started_s)
            self.intake.decode_rate.measure(sum(map(_pixels, decoded), 0.0), ended_s - stepped_s)
        if self._on_tick:
            self._on_tick(tick)
        return True

    def budget(self, painter: Painter) -> float:
        """Return what one forward pass of a model may cost, in pixels times passes.

        Args:
            painter: A model; one that was never measured takes one picture at a time.
        """
        return self._budgets.get(painter, 0.0)

    def _measure_new_models(self) -> None:
        for painter in self.intake.variants().values():
            if painter not in self._budgets:
                self._budgets[painter] = 0.0
                try:
                    self._budgets[painter] = painter.measure_budget(self.intake.limits.num_rows)
                except Exception:
                    # Requests to this model will be told what is wrong with it.
                    log.exception("%s takes one picture at a time", painter.info.name)
                    painter.free_memory()

    def _begin(self, picture: Picture) -> bool:
        job, started_s = picture.job, self._clock()
        with self.intake.changed:
            if not job.is_started and not job.is_ended:
                job.is_started = True
                job.tell(Started(waited_s=started_s - job.arrived_s))
        if picture.row is None:
            try:
                picture.row = self._retried(job.painter, lambda: job.painter.begin(picture.spec))
            except Exception as error:  # noqa: BLE001  (ends the request it hit and no other)
                self._fail(picture, error)
                return False
            picture.timings_s["encode"] = self._clock() - started_s
        return True

    def _predict(self, pictures: Sequence[Picture]) -> list[tuple[Picture, Any]]:
        pictures = [picture for picture in pictures if not picture.job.is_ended]
        if not pictures:
            return []
        started_s = self._clock()
        try:
            found = _painter(pictures).predict([picture.row for picture in pictures])
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
        self._counters.passes += 1
        return list(zip(pictures, found, strict=True))

    def _advance(self, picture: Picture, prediction: Any) -> bool:  # noqa: ANN401 - the painter's
        job = picture.job
        if job.is_ended:
            self._counters.dropped_steps += 1
            return False
        try:
            job.painter.apply(picture.row, prediction)
            is_previewed = picture.is_previewed(picture.num_done + 1)
            image = self._preview(picture) if is_previewed else None
        except Exception as error:  # noqa: BLE001  (ends the request it hit and no other)
            self._fail(picture, error)
            return False
        with self.intake.changed:
            if not job.is_ended:
                self.intake.count_step(picture)
                self._tell_step(picture, image)
                if picture.steps_left == 0:
                    self._painted.append(picture)
        return True

    def _preview(self, picture: Picture) -> Image.Image | None:
        painter = picture.job.painter
        try:
            return self._retried(painter, lambda: painter.preview(picture.row))
        except DeviceMemoryError:  # the picture itself may well fit, in tiles
            picture.fallbacks = (NO_PREVIEW,)
            return None

    def _retried(self, painter: Painter, work: Callable[[], Made]) -> Made:
        try:
            return work()
        except DeviceMemoryError:
            self._counters.out_of_memory += 1
            painter.free_memory()
            return work()

    def _tell_step(self, picture: Picture, preview: Image.Image | None) -> None:
        job, index, num_done = picture.job, picture.index, picture.num_done
        if job.order.wants_steps:
            num_steps = picture.spec.num_steps
            job.tell(StepDone(index=index, num_done=num_done, num_steps=num_steps))
        if preview is not None:
            number, picture.num_previews = picture.num_previews, picture.num_previews + 1
            self._counters.previews += 1
            job.tell(Preview(index=index, number=number, num_done=num_done, image=preview))

    def _retire(self) -> list[Picture]:
        waiting = [picture for picture in self._painted if not picture.job.is_ended]
        alike = [picture for picture in waiting if _size(picture) == _size(waiting[0])]
        chosen = alike[: self.intake.limits.num_decoded]
        self._painted = [picture for picture in waiting if picture not in chosen]
        decoded = self._decode(chosen)
        for picture, image, fallbacks in decoded:
            self._finish(picture, image, fallbacks)
        return [picture for picture, _, _ in decoded]

    def _decode(
        self, pictures: Sequence[Picture], *, tiled: bool = False
    ) -> list[tuple[Picture, Image.Image, tuple[str, ...]]]:
        if not pictures:
            return []
        started_s = self._clock()
        try:
            images = _painter(pictures).decode([picture.row for picture in pictures], tiled=tiled)
        except Exception as error:  # noqa: BLE001  (ends the request it hit and no other)
            if len(pictures) > 1:
                middle = len(pictures) // 2
                return [*self._decode(pictures[:middle]), *self._decode(pictures[middle:])]
            if isinstance(error, DeviceMemoryError) and not tiled:
                self._shrink(pictures)
                return self._decode(pictures, tiled=True)
            self._fail(pictures[0], error)
            return []
        for picture in pictures:
            picture.timings_s["decode"] = self._clock() - started_s
        fallbacks = (TILED,) if tiled else ()
        return [
            (picture, image, fallbacks) for picture, image in zip(pictures, images, strict=True)
        ]

    def _finish(self, picture: Picture, image: Image.Image, fallbacks: tuple[str, ...]) -> None:
        job, painter = picture.job, picture.job.painter
        result = GenerationResult(
            image=image,
            spec=picture.spec,
            model=painter.info.name,
            revision=painter.info.revision,
            backend=painter.execution.backend,
            timings_s=picture.timings_s,
            fallbacks=(*picture.fallbacks, *fallbacks),
        )
        with self.intake.changed:
            if job.is_ended:
                return
            job.results[picture.index] = result
            picture.end_cost = 0.0
            job.tell(Painted(index=picture.index, result=result))
            if len(job.results) == len(job.pictures):
                self._counters.finished += 1
                results = tuple(job.results[index] for index in range(len(job.pictures)))
                self.intake.end(job, Done(results=results))

    def _shrink(self, pictures: Sequence[Picture]) -> None:
        self._counters.out_of_memory += 1
        painter, half = _painter(pictures), sum(picture.step_cost for picture in pictures) / 2
        self._budgets[painter] = min(self.budget(painter), half)
        painter.free_memory()

    def _fail(self, picture: Picture, error: Exception) -> None:
        self.intake.fail(picture.job, error)


def _painter(pictures: Sequence[Picture]) -> Painter:
    return pictures[0].job.painter


def _pixels(picture: Picture) -> float:
    return float(picture.spec.width * picture.spec.height)


def _size(picture: Picture) -> tuple[Painter, int, int]:
    return picture.job.painter, picture.spec.width, picture.spec.height
