"""Guidance that is not asked for at every step: between, its last direction is kept."""

from jaxtyping import Float
from torch import Tensor


class Guide:
    """Where one picture's guidance points, from one step that asks to the next.

    Args:
        every: The unconditional side is asked at every so many steps, the first among them.
        num_steps: Steps of the picture.

    Source: the guidance part of Lv et al. 2024, "FasterCache". Differs: the difference of both
        sides is kept whole, not its low and high frequencies apart.
    """

    def __init__(self, every: int, num_steps: int) -> None:
        self._every = every
        self._num_steps = num_steps
        self._difference: Float[Tensor, "c h w"] | None = None

    def recall(self, progress: float) -> Float[Tensor, "c h w"] | None:
        """Return the direction that a step goes by without asking; None where it asks.

        Args:
            progress: Steps done over steps in all.
        """
        return None if self._asks(progress) else self._difference

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
