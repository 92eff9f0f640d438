"""How fast the emoji world is drawn and read, on one core.

python -m benchmarks.bench_scenes --output benchmarks/results/scenes.json
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import run_command
from core.progress import track
from evaluation.record import check_output, merge
from scenes.compose import render, sample_scene
from scenes.judge import SceneJudge
from scenes.layout import layout
from scenes.sprites import SpriteSheet


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    num_scenes: Annotated[int, typer.Option(min=2, help="Scenes to draw.")] = 500,
    num_read: Annotated[int, typer.Option(min=1, help="Scenes to read with the judge.")] = 50,
) -> None:
    """Measure the renderer and the judge."""
    check_output(output)
    figures = measure(num_scenes, num_read)
    merge(output, figures, module="benchmarks.bench_scenes")
    print(json.dumps(figures, indent=1))


def measure(num_scenes: int, num_read: int) -> dict[str, float]:
    """Draw and read scenes.

    Args:
        num_scenes: Scenes to draw.
        num_read: How many of them the judge reads.

    Returns:
        scenes_per_s: Scenes decided and painted, sprites cached as they come up.
        layouts_per_s: Layouts of them.
        judged_per_s: Pictures read by the judge, its templates made beforehand by one picture.
    """
    sheet = SpriteSheet()
    pictures = []

    def draw(seed: int) -> None:
        scene = sample_scene(seed, split="train", sheet=sheet)
        pictures.append((scene, render(scene, sheet)))

    drawn = _rate(draw, range(num_scenes), "Drawing")
    mapped = _rate(
        lambda index: layout(pictures[index][0], sheet, num_cells=8), range(num_scenes), "Mapping"
    )
    judge = SceneJudge(sheet)
    judge.read(pictures[0][1])
    read = _rate(
        lambda index: judge.read(pictures[index % num_scenes][1]), range(1, num_read + 1), "Reading"
    )
    return {"scenes_per_s": drawn, "layouts_per_s": mapped, "judged_per_s": read}


def _rate(do: Callable[[int], object], which: range, label: str) -> float:
    started = time.perf_counter()
    for each in track(which, label, unit="scenes"):
        do(each)
    return round(len(which) / (time.perf_counter() - started), 2)


if __name__ == "__main__":
    run_command(main)
