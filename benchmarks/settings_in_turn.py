"""Pictures of one variant in several settings, in turns: seconds, and distance from the first."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from core.progress import progress
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage

PROMPTS = (
    "a red apple",
    "a blue cup left of a yellow star",
    "two green trees, watercolor",
    "an orange heart at sunset, pixel art",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """What settings cost and change.

    Attributes:
        seconds: Median of a picture, by setting.
        distance: Mean difference from the first setting's pictures in levels of 255, by setting.
    """

    seconds: dict[str, float]
    distance: dict[str, float]


def compare(
    painter: TextToImage, settings: Mapping[str, GenerationSpec], num_seeds: int
) -> Compared:
    """Paint every prompt in every setting.

    Args:
        painter: The variant.
        settings: By name; the first is what the others are held against.
        num_seeds: Pictures of each prompt.

    Returns:
        Seconds and distance.
    """
    whole = next(iter(settings))
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    distances: dict[str, list[float]] = {name: [] for name in settings}
    painter.generate([replace(settings[whole], prompt=PROMPTS[0])])  # compiles
    total = len(settings) * len(PROMPTS) * num_seeds
    with progress("Painting", total=total, unit="pictures") as report:
        for seed in range(num_seeds):
            for prompt in PROMPTS:
                painted = {}
                for name, spec in settings.items():
                    started = time.perf_counter()
                    result = painter.generate([replace(spec, prompt=prompt, seed=seed)])[0]
                    seconds[name].append(time.perf_counter() - started)
                    painted[name] = np.asarray(result.image)
                    report.advance()
                for name, pixels in painted.items():
                    distances[name].append(_distance(pixels, painted[whole]))
    return Compared(
        seconds={name: round(statistics.median(each), 4) for name, each in seconds.items()},
        distance={name: round(statistics.mean(each), 2) for name, each in distances.items()},
    )


def _distance(ours: UInt8[np.ndarray, "h w 3"], whole: UInt8[np.ndarray, "h w 3"]) -> float:
    return float(np.abs(ours.astype(int) - whole.astype(int)).mean())
