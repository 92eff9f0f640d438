"""What every painter of a benchmark answers with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.spec import GenerationSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Painted:
    """A picture and what it took.

    Attributes:
        seconds: Time of the picture.
        pixels: 0..255.
        resident_mb: What the painter's process holds afterwards; on a GPU, the most that it held
            of the GPU's memory.
        peak_mb: The most that it held of the machine's memory since it began, loading included.
    """

    seconds: float
    pixels: np.ndarray[Any, Any]
    resident_mb: float
    peak_mb: float


Paint = Callable[[GenerationSpec], Painted]
