"""What it saves, and what it changes, to ask for guidance at some steps only.

    python -m benchmarks.bench_guidance --output benchmarks/results/performance.json

Pictures of the same prompts and noise, with guidance asked for at every step, every second and so
on; settings take turns. The distance is the mean difference from guidance at every step, in levels
of 255. Beside them fewer steps that take as many passes: what the saving is worth.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import run_command
from benchmarks.settings_in_turn import compare
from evaluation.record import check_output, merge
from pipelines.accelerate.choose import AUTO
from pipelines.text_to_image import TextToImage

EVERY = (1, 2, 3, 5)


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder.")] = "checkpoints/emoji-scenes",
    variant: Annotated[str, typer.Option(help="A variant that is guided.")] = "teacher",
    backend: Annotated[str, typer.Option(help="What computes the networks.")] = AUTO,
    seeds: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 4,
) -> None:
    """Measure seconds and distance."""
    check_output(output)
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
    found = compare(painter, settings, num_seeds)
    return {"guidance_s": found.seconds, "guidance_distance": found.distance}


if __name__ == "__main__":
    run_command(main)
