"""What it saves, and what it changes, to ask for guidance at some steps only.

    python -m benchmarks.bench_guidance --output benchmarks/results/performance.json

Pictures of the same prompts and noise, with guidance asked for at every step, every second and so
on; settings take turns. The distance is the mean difference from guidance at every step, in levels
of 255. Beside them fewer steps that take as many passes: what the saving is worth.
"""

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import UInt8

from core.progress import progress
from evaluation.record import merge
from pipelines.accelerate.choose import AUTO
from pipelines.text_to_image import TextToImage

EVERY = (1, 2, 3, 5)
PROMPTS = (
    "a red apple",
    "a blue cup left of a yellow star",
    "two green trees, watercolor",
    "an orange heart at sunset, pixel art",
)


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder.")] = "checkpoints/emoji-scenes",
    variant: Annotated[str, typer.Option(help="A variant that is guided.")] = "teacher",
    backend: Annotated[str, typer.Option(help="What computes the networks.")] = AUTO,
    seeds: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 4,
) -> None:
    """Measure seconds and distance."""
    painter = TextToImage.load(model, variant=variant, device="cpu", backend=backend)
    figures = measure(painter, seeds)
    merge(output, figures, module="benchmarks.bench_guidance")
    print(json.dumps(figures, indent=1))


def measure(painter: TextToImage, num_seeds: int) -> dict[str, dict[str, float]]:
    """Paint every prompt in every setting.

    Args:
        painter: A guided variant.
        num_seeds: Pictures of each prompt.

    Returns:
        guidance_s and guidance_distance by setting: "every N", and "S steps" with guidance at each
        of fewer steps, as many passes as "every N" takes.
    """
    whole = painter.info.own_spec("")
    settings = {f"every {n}": replace(whole, guidance_every=n) for n in EVERY}
    for n in EVERY[1:]:
        num_steps = round(whole.num_steps * (1 + 1 / n) / 2)
        settings[f"{num_steps} steps"] = replace(whole, num_steps=num_steps)
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    distances: dict[str, list[float]] = {name: [] for name in settings}
    painter.generate([replace(whole, prompt=PROMPTS[0])])  # compiles
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
                    distances[name].append(_distance(pixels, painted["every 1"]))
    return {
        "guidance_s": {name: round(statistics.median(each), 4) for name, each in seconds.items()},
        "guidance_distance": {
            name: round(statistics.mean(each), 2) for name, each in distances.items()
        },
    }


def _distance(ours: UInt8[np.ndarray, "h w 3"], whole: UInt8[np.ndarray, "h w 3"]) -> float:
    return float(np.abs(ours.astype(int) - whole.astype(int)).mean())


if __name__ == "__main__":
    typer.run(main)
