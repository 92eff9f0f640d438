"""What is asked of the engine, what it keeps about it, and what it tells of itself. No torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipelines.events import Event
from pipelines.painter import Painter
from pipelines.scheduling import Lane, Work
from pipelines.spec import GenerationResult, GenerationSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """How a request is wanted.

    Attributes:
        lane: "interactive", where someone waits, or "batch", which has its own reserved share.
        priority: Each one up halves the time until it is due and doubles the weight of its kind of
            work in its lane; -3..3.
        variant: Which model; None takes the default.
        num_previews: Previews per picture, spread over its steps; fewer if it has fewer steps.
        wants_steps: Whether every step is told.
        deadline_s: Seconds from now after which nobody waits; None for no limit. What cannot be
            done by then is refused at once, and what was not done by then is ended.
    """

    lane: Lane = "interactive"
    priority: int = 0
    variant: str | None = None
    num_previews: int = 0
    wants_steps: bool = False
    deadline_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an engine takes in, and how much goes through a network together.

    Attributes:
        max_waiting: Requests of one lane that may wait; at least 1.
        batch_share: How much of the device the batch lane gets while both lanes have work, 0..1.
        max_age_s: Whoever is older goes first in its lane.
        num_rows: Pictures of the model's own size that go through its network together; None
            takes what the model measures at its first tick.
        num_decoded: Pictures that are decoded together; at least 1.
    """

    max_waiting: int = 32
    batch_share: float = 0.2
    max_age_s: float = 60.0
    num_rows: int | None = None
    num_decoded: int = 1


@dataclass(kw_only=True, slots=True, eq=False)
class Job:
    """One request in the engine.

    Attributes:
        order: How it is wanted.
        painter: Who paints it; stays the same to its end, whatever is swapped in meanwhile.
        tell: Takes its events; called from any thread.
        arrived_s: When it came, on the engine's clock.
        gives_up_s: When nobody waits any more, on the engine's clock; None for never.
        pictures: Its pictures.
        results: Those that are finished, by index.
        is_started: Whether any picture has begun.
        is_ended: Whether Done or Failed was told; nothing is told afterwards.
    """

    order: Order
    painter: Painter
    tell: Callable[[Event], None]
    arrived_s: float
    gives_up_s: float | None
    pictures: list["Picture"] = field(default_factory=list)
    results: dict[int, GenerationResult] = field(default_factory=dict)
    is_started: bool = False
    is_ended: bool = False


@dataclass(kw_only=True, slots=True, eq=False)
class Picture(Work):
    """One picture of a request, from the queue to the end.

    Attributes:
        job: The request it belongs to.
        index: Which of its pictures, from 0.
        spec: What is asked for.
        row: What the painter keeps about it; None until it begins.
        num_previews: Previews told.
        fallbacks: What was done otherwise than asked before the picture was decoded, in words.
        timings_s: Seconds per stage. A forward pass counts in full for each of its rows.
    """

    job: Job
    index: int
    spec: GenerationSpec
    row: Any = None
    num_previews: int = 0
    fallbacks: tuple[str, ...] = ()
    timings_s: dict[str, float] = field(
        default_factory=lambda: {"encode": 0.0, "denoise": 0.0, "decode": 0.0}
    )

    @property
    def num_done(self) -> int:
        """Steps done."""
        return self.spec.num_steps - self.steps_left

    def is_previewed(self, num_done: int) -> bool:
        """Return whether a preview was asked for after so many steps.

        Args:
            num_done: Steps done; after the last there is the picture itself.
        """
        wanted = min(self.job.order.num_previews, self.spec.num_steps - 1)
        places = (round(self.spec.num_steps * (k + 1) / (wanted + 1)) for k in range(wanted))
        return num_done in places


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueState:
    """What an engine has before it.

    Attributes:
        num_waiting: Requests of which no picture has begun.
        num_running: Requests that have begun.
        backlog_s: When all of it will be done at the measured rate, in seconds from now; None
            before anything was measured.
    """

    num_waiting: int
    num_running: int
    backlog_s: float | None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.num_waiting == self.num_running == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """What one round of the engine did.

    Attributes:
        num_rows: Pictures that advanced by one step.
        num_decoded: Pictures that were decoded.
        cost: What the steps cost, in pixels times forward passes.
        seconds: How long the round took.
    """

    num_rows: int
    num_decoded: int
    cost: float
    seconds: float


@dataclass(kw_only=True, slots=True)
class Counters:
    """What an engine did since it was made; every number only grows.

    Attributes:
        requests: Requests taken in.
        refused: Requests refused because the queue was full.
        finished: Requests that got all their pictures.
        cancelled: Requests whose caller left.
        failed: Requests that ended otherwise.
        passes: Forward passes.
        steps: Steps of single pictures.
        dropped_steps: Steps that were under way when their caller left.
        out_of_memory: How often the device was full.
        previews: Previews decoded.
        swaps: Models swapped in.
    """

    requests: int = 0
    refused: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    passes: int = 0
    steps: int = 0
    dropped_steps: int = 0
    out_of_memory: int = 0
    previews: int = 0
    swaps: int = 0
