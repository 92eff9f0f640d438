"""How far a measured rate may be from the true one."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A rate with its 95 % interval.

    Attributes:
        value: Share of successes, 0..1; None when nothing was tried.
        low: Lower end of the interval.
        high: Upper end.
        num_tried: How many trials it stands on.
    """

    value: float | None
    low: float
    high: float
    num_tried: int

    def __str__(self) -> str:
        """Say it as people read it: percent, interval, trials."""
        if self.value is None:
            return "not measured"
        ends = f"{100 * self.low:.1f}-{100 * self.high:.1f}"
        return f"{100 * self.value:.1f} % ({ends}, n = {self.num_tried})"


def wilson(num_hits: int, num_tried: int) -> Rate:
    """Return a rate with its 95 % Wilson interval.

    Args:
        num_hits: Successes, at most num_tried.
        num_tried: Trials, 0 or more.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if num_tried == 0:
        return Rate(value=None, low=0.0, high=1.0, num_tried=0)
    z = 1.959964
    share = num_hits / num_tried
    scale = 1 + z**2 / num_tried
    middle = (share + z**2 / (2 * num_tried)) / scale
    spread = share * (1 - share) / num_tried + z**2 / (4 * num_tried**2)
    half = z * math.sqrt(spread) / scale
    return Rate(
        value=share,
        low=0.0 if num_hits == 0 else middle - half,
        high=1.0 if num_hits == num_tried else middle + half,
        num_tried=num_tried,
    )
