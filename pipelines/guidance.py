"""Guidance at some steps only: not at first, and between two questions by its last direction."""

from jaxtyping import Float
from torch import Tensor

from pipelines.spec import GenerationSpec


class Guide:
    """Where one picture's guidance points, from one step that asks to the next.

    Args:
        every: The unconditional side is asked at every so many steps, the first among them.
        num_steps: Steps of the picture.
        start: Share of the steps before which words are heard alone.

    Source: Kynkaanniemi et al., arXiv 2404.07724 (guidance in a limited interval); the guidance
        part of Lv et al. 2024, "FasterCache". Differs: the interval is limited at its noisy end
        alone; the difference of both sides is kept whole, not its frequencies apart.
    """

    def __init__(self, every: int, num_steps: int, start: float = 0.0) -> None:
        self._every = every
        self._num_steps = num_steps
        self._start = start
        self._difference: Float[Tensor, "c h w"] | None = None

    @classmethod
    def of(cls, spec: GenerationSpec) -> "Guide":
        """Return the guide that a picture asks for.

        Args:
            spec: The picture.
        """
        return cls(spec.guidance_every, spec.num_steps, spec.guidance_from)

    def recall(self, progress: float) -> Float[Tensor, "c h w"] | None:
        """Return the direction that a step goes by without asking; None where it asks.

        Args:
            progress: Steps done over steps in all.
        """
        return None if self._asks(progress) else self._difference

    def is_silent(self, progress: float) -> bool:
        """Return whether a step comes too early for guidance.

        Args:
            progress: Steps done over steps in all.
        """
        return progress < self._start

    def keep(self, difference: Float[Tensor, "c h w"], progress: float) -> None:
        """Keep what a step has found that is there to ask; a step computed again changes nothing.

        Args:
            difference: The prediction with words less the one without.
            progress: Steps done over steps in all.
        """
        if self._every > 1 and self._asks(progress):
            self._difference = difference

    def _asks(self, progress: float) -> bool:
        return round(progress * self._num_steps) % self._every == 0
