"""What it saves, and what it changes, to use blocks of an earlier step again.

    python -m benchmarks.bench_step_cache --output benchmarks/results/performance.json

Pictures of the same prompts and noise at several values of `cache_threshold`, and with fewer steps
that take as long, as a first round finds: what the saving is worth. Settings take turns. The
distance is the mean difference from pictures without a cache, in levels of 255. Plain torch on the
CPU, because no other backend skips blocks.
"""

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import run_command
from benchmarks.settings_in_turn import PROMPTS, compare
from evaluation.record import check_output, merge
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage

THRESHOLDS = (0.05, 0.1, 0.2, 0.3)


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder.")] = "checkpoints/emoji-scenes",
    variant: Annotated[str, typer.Option(help="A variant of many steps.")] = "teacher",
    seeds: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 8,
) -> None:
    """Measure seconds, distance and how much is skipped."""
    check_output(output)
    painter = TextToImage.load(model, variant=variant, device="cpu", backend="torch")
    figures = measure(painter, seeds)
    merge(output, figures, module="benchmarks.bench_step_cache")
    print(json.dumps(figures, indent=1))


def measure(painter: TextToImage, num_seeds: int) -> dict[str, dict[str, float]]:
    """Paint every prompt in every setting.

    Args:
        painter: A variant of many steps, computed by plain torch.
        num_seeds: Pictures of each prompt.

    Returns:
        cache_s and cache_distance by setting: "no cache", "threshold T", and "S steps" without a
        cache; cache_skipped, the share of passes that skip blocks, of those with a threshold.
    """
    whole = painter.info.own_spec("")
    settings = {"no cache": whole}
    settings |= {f"threshold {each}": replace(whole, cache_threshold=each) for each in THRESHOLDS}
    first = {name: _first_round(painter, spec, num_seeds) for name, spec in settings.items()}
    skipped = {name: share for name, (_, share) in first.items() if name != "no cache"}
    for name in skipped:
        num_steps = round(whole.num_steps * first[name][0] / first["no cache"][0])
        if 1 <= num_steps < whole.num_steps:
            settings[f"{num_steps} steps"] = replace(whole, num_steps=num_steps)
    found = compare(painter, settings, num_seeds)
    return {
        "cache_s": found.seconds,
        "cache_distance": found.distance,
        "cache_skipped": skipped,
    }


def _first_round(painter: TextToImage, spec: GenerationSpec, seed: int) -> tuple[float, float]:
    """Return the median seconds of a picture, and which share of its passes skipped blocks."""
    skipped_before = _num_skipped(painter)
    seconds = []
    for prompt in PROMPTS:
        started = time.perf_counter()
        painter.generate([replace(spec, prompt=prompt, seed=seed)])
        seconds.append(time.perf_counter() - started)
    num_skipped = _num_skipped(painter) - skipped_before
    num_passes = len(PROMPTS) * spec.num_steps * (2 if spec.guidance_scale > 1 else 1)
    return statistics.median(seconds), round(num_skipped / num_passes, 3)


def _num_skipped(painter: TextToImage) -> int:
    return painter.networks.execution.usage.get("cached_passes", 0)


if __name__ == "__main__":
    run_command(main)
