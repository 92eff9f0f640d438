"""What a picture costs by tokens, company, regions, steps and bits, and how far that is from peaks.

    python -m benchmarks.bench_costs --output benchmarks/results/performance.json \
      --picture docs/images/costs.png

Every curve changes one thing and keeps the rest: a square of 128 pixels, 4 steps, no regions, one
picture at a time; by tokens it is one step alone, for a model serves the size that it knows. Peaks
are what plain matrix products of 2048 x 2048 reach on the same threads; work is counted in
multiplications of the transformer's matrices and attention. Memory is that of a process which did
nothing else.
"""

import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.command import run_command
from benchmarks.painters import MEGABYTE, file_mb
from benchmarks.roofline import draw_roofline, peaks, step_work, timed
from core.devices import limit_threads, resident_bytes
from core.progress import progress
from core.seeding import torch_generator
from evaluation.record import check_output, merge
from pipelines.accelerate.choose import AUTO
from pipelines.region_spec import Region
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage

PLAIN = GenerationSpec(
    prompt="a red cat left of a blue dog",
    num_steps=4,
    guidance_scale=1.0,
    scheduler="ddim",
    width=128,
    height=128,
)
POINTS: dict[str, Sequence[int]] = {
    "tokens": (8, 16, 24, 32, 48),
    "company": (1, 2, 4, 8),
    "regions": (0, 1, 2, 4, 8),
    "steps": (1, 2, 4, 8, 16),
}
"""What each curve changes; tokens by latent cells along an edge."""

Curve = Mapping[str, float]
"""Seconds by what was changed."""


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder.")] = "checkpoints/emoji-scenes",
    variants: Annotated[
        str,
        typer.Option(help="Variants of the bits curve, with commas; the last draws the others."),
    ] = "rdd-4,low-bit",
    backend: Annotated[str, typer.Option(help="What computes the networks.")] = AUTO,
    repeats: Annotated[int, typer.Option(min=1, help="Pictures of each point.")] = 15,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all cores.")] = None,
    memory: Annotated[bool, typer.Option(help="Also measure memory, a process a point.")] = False,
    picture: Annotated[Path | None, typer.Option(help="PNG file to draw.")] = None,
) -> None:
    """Measure cost curves and the machine's peaks."""
    check_output(output)
    limit_threads(threads)
    names = variants.split(",")
    painters = {
        name: TextToImage.load(model, variant=name, device="cpu", backend=backend) for name in names
    }
    painter = painters[names[-1]]
    curves = measure(painter, repeats)
    bits = {
        f"{name}, {each.info.bits} bits": median_seconds(picture_call(each, [PLAIN]), repeats)
        for name, each in painters.items()
    }
    work = {
        str(num_tokens(painter, cells)): round(step_work(painter, cells) / 1e9, 4)
        for cells in POINTS["tokens"]
    }
    figures = {
        **{f"cost_s_by_{name}": curve for name, curve in (curves | {"bits": bits}).items()},
        "cost_gflop_by_tokens": work,
        "cost_weights_mb": round(file_mb(model, names[-1]), 2),
        "cost_step_ms": round(1e3 * step_seconds(curves["steps"]), 3),
        **peaks(),
    }
    if memory:
        figures |= memory_curves(model, names[-1], backend)
    merge(output, figures, module="benchmarks.bench_costs")
    if picture is not None:
        draw(json.loads(output.read_text("utf-8")), picture)
    print(json.dumps(figures, indent=1))


def measure(painter: TextToImage, repeats: int) -> dict[str, Curve]:
    """Time every point of every curve.

    Args:
        painter: The variant.
        repeats: Calls of each point.

    Returns:
        Seconds by the value of what changes, by its name.
    """
    curves: dict[str, Curve] = {}
    with progress("Costs", total=sum(map(len, POINTS.values())), unit="points") as report:
        for name, values in POINTS.items():
            curve = {}
            for value in values:
                shown = num_tokens(painter, value) if name == "tokens" else value
                curve[str(shown)] = median_seconds(point_call(painter, name, value), repeats)
                report.advance()
            curves[name] = curve
    return curves


def memory_curves(model: str, variant: str, backend: str) -> dict[str, Curve]:
    """Measure what a process holds after two calls of a point, a process for each.

    Args:
        model: Checkpoint folder.
        variant: Which variant of it.
        backend: What computes the networks.

    Returns:
        cost_mb_by_*: 10^6 bytes by the value of what changes.
    """
    found: dict[str, Curve] = {}
    with progress("Memory", total=sum(map(len, POINTS.values())), unit="points") as report:
        for name, values in POINTS.items():
            curve = {}
            for value in values:
                with get_context("spawn").Pool(1) as pool:
                    shown, held = pool.apply(_point_mb, (model, variant, backend, name, value))
                curve[shown] = held
                report.advance()
            found[f"cost_mb_by_{name}"] = curve
    return found


def _point_mb(model: str, variant: str, backend: str, name: str, value: int) -> tuple[str, float]:
    painter = TextToImage.load(model, variant=variant, device="cpu", backend=backend)
    call = point_call(painter, name, value)
    call()
    call()
    shown = num_tokens(painter, value) if name == "tokens" else value
    return str(shown), round(resident_bytes() / MEGABYTE)


def num_tokens(painter: TextToImage, cells: int) -> int:
    """Return the image tokens of a square picture.

    Args:
        painter: Knows its patches.
        cells: Latent cells along an edge.
    """
    return int((cells // painter.parts.transformer.config["patch_size"]) ** 2)


def point_call(painter: TextToImage, name: str, value: int) -> Callable[[], object]:
    """Return one call of a point: a step of so many tokens, or pictures that differ otherwise.

    Args:
        painter: Paints.
        name: What the curve changes.
        value: What it is at this point.
    """
    if name == "tokens":
        return step_call(painter, value)
    asked: dict[str, Callable[[], Sequence[GenerationSpec]]] = {
        "company": lambda: [replace(PLAIN, seed=seed) for seed in range(value)],
        "regions": lambda: [replace(PLAIN, regions=regions(value))],
        "steps": lambda: [replace(PLAIN, num_steps=value)],
    }
    return picture_call(painter, asked[name]())


def step_call(painter: TextToImage, cells: int) -> Callable[[], object]:
    """Return one step of a square picture.

    Args:
        painter: Its networks are asked.
        cells: Latent cells along an edge.
    """
    channels = painter.parts.transformer.config["in_channels"]
    # noise, as a first step has it: of what it never meets, a compiled network may say otherwise
    latent = torch.randn(1, channels, cells, cells, generator=torch_generator(0))
    with torch.inference_mode():
        words = painter.words.encode(PLAIN.prompt)

    @torch.inference_mode()
    def step() -> object:
        found = painter.networks.denoise(latent, torch.tensor([999]), [words], [None])
        assert not painter.networks.execution.fallbacks, painter.networks.execution.fallbacks
        return found

    return step


def picture_call(painter: TextToImage, specs: Sequence[GenerationSpec]) -> Callable[[], object]:
    """Return a call that paints pictures of the next seeds.

    Args:
        painter: Paints.
        specs: Pictures of a call.
    """
    seeds = itertools.count(0, 100)

    def call() -> object:
        first = next(seeds)
        return painter.generate([replace(spec, seed=spec.seed + first) for spec in specs])

    return call


def regions(number: int) -> tuple[Region, ...]:
    """Return as many upright strips that share the picture.

    Args:
        number: How many.
    """
    return tuple(
        Region(high="a cat", low="a red cat", box=(place / number, 0.0, (place + 1) / number, 1.0))
        for place in range(number)
    )


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call, after one that compiles.

    Args:
        call: What is timed.
        repeats: Calls that count.
    """
    return round(statistics.median(timed(call, repeats)), 5)


def step_seconds(steps: Curve) -> float:
    """Return what one more step costs, words and pixels aside.

    Args:
        steps: Seconds of a picture by its steps.
    """
    few, many = min(steps, key=int), max(steps, key=int)
    return (steps[many] - steps[few]) / (int(many) - int(few))


def draw(figures: Mapping[str, object], path: Path) -> None:
    """Draw every curve, its memory beside it, and steps below the machine's roof.

    Args:
        figures: What `main` measured.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = {name: figures[f"cost_s_by_{name}"] for name in _LABELS}
    figure = Figure(figsize=(14, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flatten()
    for axis, (name, curve) in zip(axes, curves.items(), strict=False):
        assert isinstance(curve, Mapping)
        axis.plot([int(value) for value in curve], [1e3 * s for s in curve.values()], "o-")
        top = 1.1e3 * max(curve.values())
        axis.set(xlabel=_LABELS[name], ylabel="milliseconds", ylim=(0, top))
        held = figures.get(f"cost_mb_by_{name}")
        if isinstance(held, Mapping):
            memory = axis.twinx()
            memory.plot([int(value) for value in held], list(held.values()), "s--", color="gray")
            memory.set(ylabel="megabytes of the process", ylim=(0, 1.3 * max(held.values())))
    bits = figures["cost_s_by_bits"]
    assert isinstance(bits, Mapping)
    axes[4].barh(list(bits), [1e3 * s for s in bits.values()])
    axes[4].set(xlabel="milliseconds a picture")
    draw_roofline(axes[5], figures)
    figure.savefig(path, dpi=100)


_LABELS = {
    "tokens": "image tokens of one step",
    "company": "pictures painted together",
    "regions": "regions",
    "steps": "steps",
}


if __name__ == "__main__":
    run_command(main)
