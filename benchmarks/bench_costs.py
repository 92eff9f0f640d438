"""What a picture costs by tokens, company, regions, steps and bits, and how far that is from peaks.

    python -m benchmarks.bench_costs --output benchmarks/results/performance.json \
      --picture docs/images/costs.png

Every curve changes one thing and keeps the rest: a square of 128 pixels, 4 steps, no regions, one
picture at a time; by tokens it is one step alone, for a model serves the size that it knows. Peaks
are what plain matrix products of 2048 x 2048 reach on the same threads; work is counted in
multiplications of the transformer's matrices and attention.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.painters import MEGABYTE
from core.devices import limit_threads, resident_bytes
from core.progress import progress
from evaluation.record import merge
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
CELLS = (8, 16, 24, 32, 48)
"""Latent cells along an edge."""
COMPANY = (1, 2, 4, 8)
REGIONS = (0, 1, 2, 4, 8)
STEPS = (1, 2, 4, 8, 16)
PRODUCT = 2048

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
    picture: Annotated[Path | None, typer.Option(help="PNG file to draw.")] = None,
) -> None:
    """Measure cost curves and the machine's peaks."""
    limit_threads(threads)
    names = variants.split(",")
    painters = {
        name: TextToImage.load(model, variant=name, device="cpu", backend=backend) for name in names
    }
    painter = painters[names[-1]]
    curves = measure(painter, repeats) | {
        "bits": {
            f"{name}, {each.info.bits} bits": seconds(each, [PLAIN], repeats)
            for name, each in painters.items()
        }
    }
    figures = {
        **{f"cost_s_by_{name}": curve for name, curve in curves.items()},
        "cost_step_gflop": round(step_work(painter, PLAIN) / 1e9, 4),
        "cost_step_ms": round(1e3 * step_seconds(curves["steps"]), 3),
        "cost_resident_mb": round(resident_bytes() / MEGABYTE),
        **peaks(),
    }
    merge(output, figures, module="benchmarks.bench_costs")
    if picture is not None:
        draw(figures, picture)
    print(json.dumps(figures, indent=1))


def measure(painter: TextToImage, repeats: int) -> dict[str, Curve]:
    """Measure all curves of one variant.

    Args:
        painter: The variant.
        repeats: Pictures of each point.

    Returns:
        Seconds by the value of what changes, by its name.
    """
    asked: dict[str, dict[str, Sequence[GenerationSpec]]] = {
        "company": {str(n): [replace(PLAIN, seed=seed) for seed in range(n)] for n in COMPANY},
        "regions": {str(n): [replace(PLAIN, regions=regions(n))] for n in REGIONS},
        "steps": {str(n): [replace(PLAIN, num_steps=n)] for n in STEPS},
    }
    curves: dict[str, Curve] = {"tokens": by_tokens(painter, repeats)}
    with progress("Costs", total=sum(map(len, asked.values())), unit="points") as report:
        for name, points in asked.items():
            curve = {}
            for value, specs in points.items():
                curve[value] = seconds(painter, specs, repeats)
                report.advance()
            curves[name] = curve
    return curves


def by_tokens(painter: TextToImage, repeats: int) -> Curve:
    """Time one step of pictures of several sizes.

    Args:
        painter: The variant.
        repeats: Steps of each size.

    Returns:
        Seconds by image tokens.
    """
    config = painter.parts.transformer.config
    with torch.inference_mode():
        words = painter.networks.encode(torch.ones(1, 12, dtype=torch.long))
        found = {}
        for cells in CELLS:
            latent = torch.zeros(1, config["in_channels"], cells, cells)

            def step(latent: torch.Tensor = latent) -> object:
                return painter.networks.denoise(latent, torch.tensor([500]), [words], [None])

            times = timed(step, repeats)
            found[str((cells // config["patch_size"]) ** 2)] = round(statistics.median(times), 5)
    return found


def regions(number: int) -> tuple[Region, ...]:
    """Return as many upright strips that share the picture.

    Args:
        number: How many.
    """
    return tuple(
        Region(high="a cat", low="a red cat", box=(place / number, 0.0, (place + 1) / number, 1.0))
        for place in range(number)
    )


def seconds(painter: TextToImage, specs: Sequence[GenerationSpec], repeats: int) -> float:
    """Return the median time of one call, after one that compiles.

    Args:
        painter: Paints.
        specs: Pictures of a call.
        repeats: Calls that count.
    """
    seeds = itertools.count(0, 100)

    def call() -> object:
        first = next(seeds)
        return painter.generate([replace(spec, seed=spec.seed + first) for spec in specs])

    return round(statistics.median(timed(call, repeats)), 5)


def step_seconds(steps: Curve) -> float:
    """Return what one more step costs, words and pixels aside.

    Args:
        steps: Seconds of a picture by its steps.
    """
    few, many = min(steps, key=int), max(steps, key=int)
    return (steps[many] - steps[few]) / (int(many) - int(few))


def step_work(painter: TextToImage, spec: GenerationSpec) -> float:
    """Count the floating-point operations of one pass, as torch counts them.

    Args:
        painter: Its float network, or what its codes stand for.
        spec: A picture.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from pipelines.accelerate.graphs import RowTransformer, row_words

    network = painter.parts.transformer
    row = RowTransformer(network, painter.info.latent_factor)
    edge = spec.width // painter.info.latent_factor
    num_tokens = (edge // network.config["patch_size"]) ** 2
    with torch.no_grad():
        words = painter.networks.encode(torch.ones(1, 12, dtype=torch.long))
        heard = row_words(
            words, None, num_layers=len(network.transformer_blocks), num_tokens=num_tokens
        )
        latent = torch.zeros(1, network.config["in_channels"], edge, edge)
        with FlopCounterMode(display=False) as counter:
            row(latent, torch.tensor([500.0]), *heard)
    return float(counter.get_total_flops())


def peaks(repeats: int = 5) -> dict[str, float]:
    """Measure what this machine reaches at best: matrix products and copies.

    Args:
        repeats: Products that count; the fastest is the peak.

    Returns:
        peak_gflop_s_*: Billions of operations a second by number format, two a multiplication.
        peak_gb_s: Gigabytes a second of a copy, read and written.
    """
    shape = (PRODUCT, PRODUCT)
    wide, half = torch.randn(shape), torch.randn(shape).bfloat16()
    bytes_ = torch.randint(-127, 128, shape, dtype=torch.int8)
    source = torch.empty(2**28, dtype=torch.uint8)
    target = torch.empty_like(source)
    products: dict[str, Callable[[], object]] = {
        "float32": lambda: wide @ wide,
        "bfloat16": lambda: half @ half,
        "int8": lambda: torch._int_mm(bytes_, bytes_),  # noqa: SLF001 - torch's int8 product
    }
    found = {
        f"peak_gflop_s_{name}": significant(2 * PRODUCT**3 / fastest(call, repeats) / 1e9)
        for name, call in products.items()
    }
    copy_s = fastest(lambda: target.copy_(source), repeats)
    return {**found, "peak_gb_s": significant(2 * source.numel() / copy_s / 1e9)}


def significant(number: float) -> float:
    """Round to four digits, so that a slow machine's figures are not zero.

    Args:
        number: Any.
    """
    return float(f"{number:.4g}")


def fastest(call: Callable[[], object], repeats: int) -> float:
    """Return the least time of several calls, after one that warms up.

    Args:
        call: What is timed.
        repeats: How often.
    """
    return min(timed(call, repeats))


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Return the time of every call, after one that warms up.

    Args:
        call: What is timed.
        repeats: How often.
    """
    call()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return found


def draw(figures: Mapping[str, object], path: Path) -> None:
    """Draw every curve, and the step below the machine's roof.

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
        axis.set(xlabel=_LABELS[name], ylabel="milliseconds", ylim=(0, None))
    bits = figures["cost_s_by_bits"]
    assert isinstance(bits, Mapping)
    axes[4].barh(list(bits), [1e3 * s for s in bits.values()])
    axes[4].set(xlabel="milliseconds a picture")
    roofs = {
        name.removeprefix("peak_gflop_s_"): float(str(value))
        for name, value in figures.items()
        if name.startswith("peak_gflop_s_")
    }
    reached = float(str(figures["cost_step_gflop"])) / float(str(figures["cost_step_ms"])) * 1e3
    axes[5].barh([*roofs, "one step reaches"], [*roofs.values(), reached])
    axes[5].set(xlabel="billions of operations a second")
    figure.savefig(path, dpi=100)


_LABELS = {
    "tokens": "image tokens of one step",
    "company": "pictures painted together",
    "regions": "regions",
    "steps": "steps",
}


if __name__ == "__main__":
    typer.run(main)
