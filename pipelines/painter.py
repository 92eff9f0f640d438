"""What the engine needs from a model; `pipelines.rows.RowPainter` has it. No torch here."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from PIL import Image

from pipelines.accelerate.execution import Execution
from pipelines.spec import GenerationSpec

if TYPE_CHECKING:  # or else whoever only speaks of painters loads torch
    from pipelines.model_info import ModelInfo


@runtime_checkable
class Painter(Protocol):
    """A loaded model that paints step by step, each picture a row of its own.

    `check`, `key`, `count_tokens` and `unknown_words` are called from any thread; all else from one
    thread. What is too large for the device is raised as DeviceMemoryError, and leaves every row as
    it was.
    """

    @property
    def info(self) -> "ModelInfo":
        """What is loaded."""

    @property
    def execution(self) -> Execution:
        """What computes it, and how often something else had to; read from any thread."""

    def check(self, spec: GenerationSpec) -> None:
        """Refuse, before any work, a picture that this model cannot paint as asked.

        Args:
            spec: The picture. The InputError that is raised names its field at fault.
        """

    def key(self, spec: GenerationSpec) -> Hashable:
        """Return what pictures must have in common to go through the network together.

        Args:
            spec: A picture that was checked.
        """

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model reads for a text.

        Args:
            text: A prompt.
        """

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the model has no tokens for, in their order.

        Args:
            text: A prompt.
        """

    def measure_budget(self, num_rows: int | None) -> float:
        """Return what one forward pass should cost at most, in pixels times passes.

        Args:
            num_rows: Pictures of the model's own size and guidance that go together; None
                measures how many are worth it.
        """

    def begin(self, spec: GenerationSpec) -> Any:  # noqa: ANN401 - the painter's own
        """Return a row: words, noise and solver of one picture, before its first step.

        Args:
            spec: The picture.
        """

    def predict(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Ask the network once what these rows hide; no row is changed.

        Args:
            rows: Rows of one key, each at its own step.

        Returns:
            One prediction per row.
        """

    def apply(self, row: Any, prediction: Any) -> None:  # noqa: ANN401 - the painter's own
        """Advance one row by one step.

        Args:
            row: The row.
            prediction: What `predict` returned for it.
        """

    def preview(self, row: Any) -> Image.Image:  # noqa: ANN401 - the painter's own
        """Return what a row is expected to become.

        Args:
            row: A row after its first step.
        """

    def decode(self, rows: Sequence[Any], *, tiled: bool = False) -> list[Image.Image]:
        """Turn finished rows of one size into pictures.

        Args:
            rows: Rows after their last step.
            tiled: Decode piece by piece, which takes less memory and may show seams.

        Returns:
            One picture per row.
        """

    def free_memory(self) -> None:
        """Give memory back to the device that only waits to be used again."""
