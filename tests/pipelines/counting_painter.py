"""A painter without a network that keeps a diary, and a bench to tick an engine on it by hand."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from PIL import Image

from core.errors import InputError
from pipelines.accelerate.execution import Execution
from pipelines.engine import Engine
from pipelines.events import Done, Event
from pipelines.intake import Intake
from pipelines.orders import Job, Limits, Order, Tick
from pipelines.spec import GenerationSpec

SPEC = GenerationSpec(prompt="a red apple", num_steps=4)


@dataclass(eq=False)
class CountedRow:
    spec: GenerationSpec
    num_done: int = 0


class CountingPainter:
    """Every pass is a list of (seed, steps done) in `passes`; pictures have the seed's colour."""

    def __init__(self, revision: str = "one") -> None:
        self.info: Any = SimpleNamespace(name="counting", revision=revision, variant="default")
        self.execution = Execution("counting")
        self.passes: list[list[tuple[int, int]]] = []
        self.decoded: list[list[int]] = []
        self.begun: list[int] = []
        self.previewed: list[tuple[int, int]] = []
        self.num_freed = 0
        self.best_num_rows = 1
        self.before_pass: Callable[[list[int]], None] = lambda _: None
        self.before_decode: Callable[[list[int], bool], None] = lambda _, __: None

    def check(self, spec: GenerationSpec) -> None:
        if not spec.prompt:
            raise InputError("The prompt is empty.", param="prompt")

    def key(self, spec: GenerationSpec) -> Hashable:
        return spec.width, spec.height, spec.guidance_scale > 1

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def unknown_words(self, text: str) -> list[str]:
        return [word for word in text.split() if word == "zebra"]

    def measure_budget(self, num_rows: int | None) -> float:
        return (num_rows or self.best_num_rows) * 2.0 * 128 * 128

    def begin(self, spec: GenerationSpec) -> CountedRow:
        self.begun.append(spec.seed)
        return CountedRow(spec)

    def predict(self, rows: Sequence[CountedRow]) -> list[int]:
        assert len({self.key(row.spec) for row in rows}) == 1
        self.before_pass([row.spec.seed for row in rows])
        self.passes.append([(row.spec.seed, row.num_done) for row in rows])
        return [row.spec.seed for row in rows]

    def apply(self, row: CountedRow, prediction: int) -> None:
        assert prediction == row.spec.seed
        assert row.num_done < row.spec.num_steps
        row.num_done += 1

    def preview(self, row: CountedRow) -> Image.Image:
        self.previewed.append((row.spec.seed, row.num_done))
        return self._image(row)

    def decode(self, rows: Sequence[CountedRow], *, tiled: bool = False) -> list[Image.Image]:
        assert all(row.num_done == row.spec.num_steps for row in rows)
        self.before_decode([row.spec.seed for row in rows], tiled)
        self.decoded.append([row.spec.seed for row in rows])
        return [self._image(row) for row in rows]

    def free_memory(self) -> None:
        self.num_freed += 1

    def _image(self, row: CountedRow) -> Image.Image:
        size = (row.spec.width, row.spec.height)
        return Image.new("RGB", size, (row.spec.seed % 256, 0, 0))


@dataclass
class Listener:
    events: list[Event] = field(default_factory=list)
    job: Job | None = None

    @property
    def last(self) -> Any:
        return self.events[-1]

    @property
    def kinds(self) -> list[type]:
        return [type(event) for event in self.events]


class Bench:
    """An engine on one painter, its clock in a test's hand."""

    def __init__(self, painter: CountingPainter | None = None, **limits: Any) -> None:
        self.now_s = 0.0
        self.painter = painter or CountingPainter()
        self.ticks: list[Tick] = []
        self.intake = Intake({"default": self.painter}, Limits(**limits), lambda: self.now_s)
        self.engine = Engine(self.intake, self.ticks.append)

    def submit(self, *specs: GenerationSpec, **order: Any) -> Listener:
        listener = Listener()
        listener.job = self.intake.submit(specs, Order(**order), listener.events.append)
        return listener

    def tick(self, num_ticks: int = 1) -> None:
        for _ in range(num_ticks):
            assert self.engine.tick()

    def finish(self) -> None:
        while self.engine.tick():
            pass


def seeds(*numbers: int, **changes: Any) -> list[GenerationSpec]:
    return [replace(SPEC, seed=number, **changes) for number in numbers]


def result_seeds(listener: Listener) -> list[int]:
    assert isinstance(listener.last, Done)
    return [result.spec.seed for result in listener.last.results]
