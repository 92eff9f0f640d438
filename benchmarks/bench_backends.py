"""Whole pictures by every backend and by its peers, in one run and in turns.

    make peers
    python -m benchmarks.bench_backends --output benchmarks/results/performance.json
    python -m benchmarks.bench_backends --xl-rounds 5 --output benchmarks/results/performance.json
    python -m benchmarks.bench_backends --device cuda --output benchmarks/results/performance.json

In each round every painter takes a turn of three pictures, of prompts that nobody met before, in an
order drawn anew; the figure is the median over pictures, its quartiles stand beside it as `_low`
and `_high`. A figure that was not measured is null. All are compiled and warm before round one.
Figures of a GPU end in `_cuda`, beside those of the CPU.
"""

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

import numpy as np
import typer

from benchmarks.backends_xl import EDGES, RUNNERS, XL, measure_xl
from benchmarks.bench_first_image import measure as measure_server
from benchmarks.command import run_command
from benchmarks.painters import ON_CPU, ON_CUDA, OURS, PEERS, Painter, Subject, painters
from core.devices import limit_threads, usable_device
from core.errors import InputError, UnknownNameError
from core.progress import progress
from core.seeding import numpy_generator
from evaluation.record import check_output, merge
from pipelines.spec import GenerationSpec

COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown")
NOUNS = ("cat", "dog", "apple", "frog", "owl", "star", "car", "heart", "moon", "fish")
T = TypeVar("T")
EVERYBODY = {"cpu": ON_CPU, "cuda": ON_CUDA}
REFERENCE = "diffusers_fp32"
TURN = 3
"""Pictures of a turn: a first that finds cold caches and two that do not."""


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder.")] = "checkpoints/emoji-scenes",
    variant: Annotated[str | None, typer.Option(help="Variant that ours paint with.")] = "low-bit",
    lean_variant: Annotated[
        str | None, typer.Option(help="Smallest variant, which `ours_lean` paints with.")
    ] = "low-bit-3",
    peers_variant: Annotated[
        str | None, typer.Option(help="Float variant of the peers.")
    ] = "rdd-4",
    teacher: Annotated[str | None, typer.Option(help="Variant of 50 guided steps.")] = "teacher",
    steps: Annotated[int, typer.Option(min=2, help="Steps; peers take no single one.")] = 4,
    who: Annotated[list[str] | None, typer.Option(help="Painters; all of them.")] = None,
    num_rounds: Annotated[int, typer.Option(min=0, help="Rounds of whole pictures.")] = 10,
    xl_rounds: Annotated[int, typer.Option(min=0, help="Rounds of PixArt-XL/2's shape.")] = 0,
    xl_tokens: Annotated[
        list[int] | None, typer.Option(help="Image tokens of that shape: 256, 1024; both.")
    ] = None,
    xl_who: Annotated[list[str] | None, typer.Option(help="Who runs it; everybody.")] = None,
    device: Annotated[str, typer.Option(help="Where all paint: cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all cores.")] = None,
    memory: Annotated[bool, typer.Option(help="Also measure memory, a process each.")] = False,
    server: Annotated[bool, typer.Option(help="Also time a server's first picture.")] = False,
) -> None:
    """Measure backends beside their peers."""
    check_output(output)
    limit_threads(threads)
    names = chosen("painter", who or everybody(device), (*OURS, *PEERS), "who")
    _check_device(device, only_on_cpu=xl_rounds > 0 or server)
    sizes = chosen("number of tokens", xl_tokens, EDGES, "xl_tokens")
    runners = chosen("runner", xl_who, RUNNERS, "xl_who")
    figures: dict[str, float | None] = {}
    with TemporaryDirectory() as cache_dir:
        subject = Subject(
            model=model,
            variant=variant,
            lean_variant=lean_variant,
            peers_variant=peers_variant,
            teacher=teacher,
            cache_dir=cache_dir,
            device=device,
        )
        if num_rounds:
            with painters(subject, names) as present:
                figures |= distances(present, steps) | rates(present, steps, num_rounds)
                figures |= weights(present)
        if memory:
            figures |= memory_of(subject, names, steps)
    if device != "cpu":
        figures = {f"{name}_{device}": figure for name, figure in figures.items()}
    for tokens in sizes if xl_rounds else ():
        found = measure_xl(xl_rounds, who=runners, edge=EDGES[tokens])
        figures |= {name if tokens == 256 else f"{name}_{tokens}": x for name, x in found.items()}
    if server:
        measure_server(model, variant, 1)  # leaves compiled networks behind
        figures["first_image_s"] = measure_server(model, variant, 1)["first_image_s"]
    _record(output, figures, device)


def _record(output: Path, figures: Mapping[str, float | None], device: str) -> None:
    known = json.loads(output.read_text("utf-8")) if output.exists() else {}
    merge(
        output, {**unmeasured(known), **figures}, module="benchmarks.bench_backends", device=device
    )
    print(json.dumps(figures, indent=1))


def _check_device(device: str, *, only_on_cpu: bool) -> None:
    """Refuse a device that is not there, or not for what is asked.

    Raises:
        InputError: If what is only measured on the CPU is asked for elsewhere; a device that is not
            there is a ConfigError.
    """
    usable_device(device)
    if device != "cpu" and only_on_cpu:
        raise InputError(
            "PixArt-XL/2's shape and a server's first picture are measured on the CPU: leave "
            "--device out with --xl-rounds and --server.",
            param="device",
        )


def chosen(kind: str, asked: Sequence[T] | None, known: Collection[T], param: str) -> list[T]:
    """Return what is asked for, or all that is known.

    Args:
        kind: What it is, as a noun.
        asked: Some of the known; None or nothing is all.
        known: What there is.
        param: The option.

    Raises:
        UnknownNameError: If something is asked for that is not known.
    """
    for each in asked or ():
        if each not in known:
            raise UnknownNameError(kind, str(each), map(str, known), param=param)
    return list(asked or known)


def everybody(device: str) -> Sequence[str]:
    """Return who can paint on a device.

    Args:
        device: "cpu" or "cuda".

    Raises:
        UnknownNameError: If nobody is measured on such a device; a device that is not there is a
            ConfigError.
    """
    if device not in EVERYBODY:
        raise UnknownNameError("device", device, EVERYBODY, param="device")
    usable_device(device)
    return EVERYBODY[device]


def unmeasured(known: Mapping[str, object]) -> dict[str, None]:
    """Return every headline figure that is not known yet, as null.

    Args:
        known: Figures that are there.
    """
    kinds = ("images_per_s", "distance", "weights_mb", "resident_mb")
    sized = [f"{name}{end}" for name in XL for end in ("", "_1024")]
    names = [
        f"{kind}_{who}{'' if device == 'cpu' else f'_{device}'}"
        for device, present in EVERYBODY.items()
        for kind, who in product(kinds, present)
    ]
    return {name: None for name in [*names, *sized, "first_image_s"] if name not in known}


def rates(present: Mapping[str, Painter], steps: int, num_rounds: int) -> dict[str, float | None]:
    """Time whole pictures in turns.

    Args:
        present: Painters by name.
        steps: Denoising steps of a picture; the teacher takes its own.
        num_rounds: Rounds that count, at least 1.

    Returns:
        Pictures a second of each: median, and quartiles where there are rounds enough.
    """
    rng = numpy_generator(0, "order")
    seconds: dict[str, list[float]] = {name: [] for name in present}
    specs = iter(_pictures(steps))
    with progress("Turns", total=(num_rounds + 1) * len(present), unit="turns") as report:
        for number in range(num_rounds + 1):
            asked = [next(specs) for _ in range(TURN)]
            for name in rng.permutation(list(present)):
                found = [present[str(name)].paint(spec).seconds for spec in asked]
                if number:  # the first is everybody's warm-up
                    seconds[str(name)] += found
                report.advance()
    figures: dict[str, float | None] = {}
    for name, each in seconds.items():
        figures[f"images_per_s_{name}"] = round(1 / statistics.median(each), 3)
        if len(each) >= 4:
            slow, _, fast = (1 / s for s in reversed(statistics.quantiles(each, n=4)))
            figures[f"images_per_s_{name}_low"] = round(slow, 3)
            figures[f"images_per_s_{name}_high"] = round(fast, 3)
    return figures


def distances(present: Mapping[str, Painter], steps: int) -> dict[str, float | None]:
    """Compare pictures with diffusers' float32 pictures of the same prompts and noise.

    Args:
        present: Painters by name.
        steps: Denoising steps.

    Returns:
        Mean absolute difference in levels of 255, over four pictures.
    """
    if REFERENCE not in present:
        return {}
    specs = [spec for spec, _ in zip(_pictures(steps, seed=1), range(4), strict=False)]
    expected = [_levels(present[REFERENCE], spec) for spec in specs]
    found = {}
    for name, painter in present.items():
        each = [
            float(abs(_levels(painter, spec) - want).mean())
            for spec, want in zip(specs, expected, strict=True)
        ]
        found[f"distance_{name}"] = round(statistics.mean(each), 4)
    return dict(found)


def weights(present: Mapping[str, Painter]) -> dict[str, float | None]:
    """Return the size of everybody's transformer weights in megabytes.

    Args:
        present: Painters by name.
    """
    return {
        f"weights_mb_{name}": round(painter.weights_mb, 2)
        for name, painter in present.items()
        if painter.weights_mb is not None
    }


def memory_of(subject: Subject, who: Sequence[str], steps: int) -> dict[str, float | None]:
    """Measure what a process holds after two pictures, and at most, a process for each painter.

    Args:
        subject: What is measured.
        who: Painters.
        steps: Denoising steps.
    """
    found: dict[str, float | None] = {}
    for name in who:
        with get_context("spawn").Pool(1) as pool:
            held, peak = pool.apply(_memory_mb, (name, subject, steps))
        found |= {f"resident_mb_{name}": held, f"peak_mb_{name}": peak}
    return found


def _memory_mb(name: str, subject: Subject, steps: int) -> tuple[float | None, float | None]:
    with painters(subject, [name]) as present:
        if name not in present:
            return None, None
        first, second = _pictures(steps)[:2]
        present[name].paint(first)
        painted = present[name].paint(second)
        # The kernel notes the peak now and then: what is held now may be a little more.
        peak_mb = max(painted.peak_mb, painted.resident_mb)
        return round(painted.resident_mb), round(peak_mb)


def _levels(
    painter: Painter, spec: GenerationSpec
) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    return painter.paint(spec).pixels.astype(np.int64)


def _pictures(steps: int, seed: int = 0) -> Sequence[GenerationSpec]:
    """Return pictures of prompts that differ, so that nobody can remember one."""
    things = [f"a {color} {noun}" for color, noun in product(COLORS, NOUNS)]
    rng = numpy_generator(seed, "prompts")
    pairs = [rng.choice(things, 2, replace=False) for _ in range(1000)]
    return [
        GenerationSpec(
            prompt=f"{one} left of {other}", seed=place, num_steps=steps, guidance_scale=1.0
        )
        for place, (one, other) in enumerate(pairs)
    ]


if __name__ == "__main__":
    run_command(main)
