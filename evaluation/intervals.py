"""How far a measured rate may be from the true one."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Normal quantile of a two-sided 95 % interval.
Z_95 = 1.959964


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
    z = Z_95
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A mean with its 95 % interval.

    Attributes:
        value: The mean.
        low: Lower end of the interval; for something that cannot be negative, it may be.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Mean:
    """Return the mean of independent runs with Student's interval.

    Args:
        values: One per run, at least two.

    Source:
        Student 1908, "The probable error of a mean".
    """
    from scipy import stats  # takes most of a second

    count, middle = len(values), statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(count)
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return Mean(value=middle, low=middle - half, high=middle + half)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far one rate is above another on the same trials, with its 95 % interval.

    Attributes:
        value: First rate minus second, -1..1.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """Return how much more often the first succeeds than the second on the same trials.

    Args:
        first: Outcomes, at least one.
        second: Outcomes of the same trials, in the same order.

    Source:
        Agresti and Min 2005, "Simple improved confidence intervals for comparing matched
        proportions": half a trial is added to each of the four kinds of pairs.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    num_tried = len(first) + 2
    gains, losses = only_first + 0.5, only_second + 0.5
    middle = (gains - losses) / num_tried
    spread = (gains + losses) / num_tried - middle**2
    half = Z_95 * math.sqrt(spread / num_tried)
    return Difference(
        value=(only_first - only_second) / len(first),
        low=max(-1.0, middle - half),
        high=min(1.0, middle + half),
    )
