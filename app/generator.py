"""What the service needs from a model; `pipelines.text_to_image.TextToImage` has it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.store import ModelInfo


class Generator(Protocol):
    """A loaded model that paints; `generate` is called from the one thread of its device."""

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""

    def check(self, spec: GenerationSpec) -> None:
        """Refuse, before any work, a picture that this model cannot paint as asked.

        Args:
            spec: The picture. The InputError that is raised names its field at fault.
        """

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model reads for a text.

        Args:
            text: A prompt.
        """

    def generate(
        self,
        specs: Sequence[GenerationSpec],
        *,
        on_step: Callable[[int, int], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> list[GenerationResult]:
        """Paint pictures of one size and one step count together.

        Args:
            specs: The pictures.
            on_step: Called after every step with the steps done and the steps in all.
            is_cancelled: Asked before every step; true ends it by GenerationCancelledError.

        Returns:
            One result per spec, in order.
        """
