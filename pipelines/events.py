"""What an accepted request tells while it is worked on. No torch here: any layer may import it."""

from dataclasses import dataclass

from PIL import Image

from pipelines.spec import GenerationResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Queued:
    """The request was taken; always the first event.

    Attributes:
        num_ahead: Requests that were taken before it and have not begun.
        wait_s: When all work taken so far, its own included, will be done at the measured rate,
            in seconds from now; None before anything was measured.
    """

    num_ahead: int
    wait_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The first picture of the request begins.

    Attributes:
        waited_s: How long it waited, in seconds.
    """

    waited_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDone:
    """One picture advanced; only told to those who asked for it.

    Attributes:
        index: Which picture of the request, from 0.
        num_done: Steps done.
        num_steps: Steps in all.
    """

    index: int
    num_done: int
    num_steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What the model expects a picture to become; only told to those who asked for it.

    Attributes:
        index: Which picture of the request, from 0.
        number: Which preview of this picture, from 0.
        num_done: Steps done.
        image: The preview, RGB, of the picture's size.
    """

    index: int
    number: int
    num_done: int
    image: Image.Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Painted:
    """One picture is finished.

    Attributes:
        index: Which picture of the request, from 0.
        result: The picture and how to make it again.
    """

    index: int
    result: GenerationResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The request is finished; always the last event of a request that succeeds.

    Attributes:
        results: All pictures, in the order they were asked for.
    """

    results: tuple[GenerationResult, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The request ended without its pictures; always the last event of a request that does not.

    Attributes:
        error: Why: one of the error tree, or a bug as it was raised.
    """

    error: Exception


Event = Queued | Started | StepDone | Preview | Painted | Done | Failed
