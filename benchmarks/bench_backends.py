"""Whole pictures by every backend and by its peers, in one process and in turns.

    python -m benchmarks.bench_backends --output benchmarks/results/performance.json
    python -m benchmarks.bench_backends --xl-rounds 5 --output benchmarks/results/performance.json

In each round every painter paints one picture of a prompt that nobody met before, in an order drawn
anew; the figure is the median over rounds, its quartiles stand beside it as `_low` and `_high`. A
figure that was not measured is null. Ours are compiled before the first round, as after a start.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, PixArtTransformer2DModel

from benchmarks.backends_xl import measure_xl
from benchmarks.bench_first_image import measure as measure_server
from core.devices import limit_threads, resident_bytes
from core.errors import UnknownNameError
from core.progress import progress
from core.seeding import numpy_generator
from evaluation.record import merge
from pipelines.accelerate.choose import AUTO, BACKENDS
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage

COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown")
NOUNS = ("cat", "dog", "apple", "frog", "house", "star", "boat", "crown", "key", "fish")
PEERS = ("diffusers_fp32", "diffusers_bf16", "diffusers_compiled", "diffusers_teacher50")
NOT_YET = ("openvino_int8_static", "torchao_int8", "ort_int8", "sdnq_uint4", "quanto_int8")
XL = ("xl_speedup_fp32", "xl_speedup_bf16", "xl_weight_ratio")
MEGABYTE = 1e6

Paint = Callable[[GenerationSpec], np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is measured.

    Attributes:
        model: Checkpoint folder.
        variant: The variant that ours paint with; None for the folder's default.
        peers_variant: The float variant that peers paint with.
        teacher: The variant that takes 50 guided steps.
        cache_dir: Where compiled networks are kept.
    """

    model: str
    variant: str | None
    peers_variant: str | None
    teacher: str | None
    cache_dir: str


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder.")] = "checkpoints/emoji-scenes",
    variant: Annotated[str | None, typer.Option(help="Variant that ours paint with.")] = None,
    peers_variant: Annotated[str | None, typer.Option(help="Float variant of the peers.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Variant of the 50-step teacher.")] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps; peers take no single one.")] = 4,
    who: Annotated[list[str] | None, typer.Option(help="Painters; all of them.")] = None,
    num_rounds: Annotated[int, typer.Option(min=0, help="Rounds of whole pictures.")] = 20,
    xl_rounds: Annotated[int, typer.Option(min=0, help="Rounds of PixArt-XL/2's shape.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all cores.")] = None,
    memory: Annotated[bool, typer.Option(help="Also measure memory, a process each.")] = False,
    server: Annotated[bool, typer.Option(help="Also time a server's first picture.")] = False,
) -> None:
    """Measure backends beside diffusers."""
    limit_threads(threads)
    figures: dict[str, float | None] = {}
    with TemporaryDirectory() as cache_dir:
        subject = Subject(
            model=model,
            variant=variant,
            peers_variant=peers_variant,
            teacher=teacher,
            cache_dir=cache_dir,
        )
        if num_rounds:
            painters = all_painters(subject, who or (*ours(), *PEERS))
            figures |= distances(painters, steps) | rates(painters, steps, num_rounds)
            figures |= weights(subject)
        if memory:
            figures |= residents(subject, steps)
    if xl_rounds:
        figures |= measure_xl(xl_rounds)
    if server:
        measure_server(model, variant, 1)  # leaves compiled networks behind
        figures["first_image_s"] = measure_server(model, variant, 1)["first_image_s"]
    known = json.loads(output.read_text("utf-8")) if output.exists() else {}
    merge(output, {**unmeasured(known), **figures}, module="benchmarks.bench_backends")
    print(json.dumps(figures, indent=1))


def ours() -> tuple[str, ...]:
    """Return the names of our painters: what is served by default, and each backend."""
    return ("ours", *(f"ours_{name.replace('-', '_')}" for name in BACKENDS))


def unmeasured(known: Mapping[str, object]) -> dict[str, None]:
    """Return every headline figure that is not known yet, as null.

    Args:
        known: Figures that are there.
    """
    everybody = (*ours(), *PEERS, *NOT_YET)
    kinds = ("images_per_s", "distance", "weights_mb", "resident_mb")
    names = [*(f"{kind}_{who}" for kind, who in product(kinds, everybody)), *XL, "first_image_s"]
    return {name: None for name in names if name not in known}


def all_painters(subject: Subject, who: Sequence[str]) -> dict[str, Paint]:
    """Load everybody who can be measured here.

    Args:
        subject: What is measured.
        who: Names.

    Returns:
        Painters by name; who cannot be loaded is left out, and said.
    """
    painters = {}
    for name in who:
        try:
            painters[name] = load_painter(name, subject)
        except Exception as error:  # noqa: BLE001  (a peer that is missing must not end the run)
            print(f"{name} is not measured: {error}")
    return painters


def load_painter(name: str, subject: Subject) -> Paint:
    """Load one of them.

    Args:
        name: Whose name.
        subject: What is measured.

    Returns:
        Paints one picture.

    Raises:
        UnknownNameError: If nobody has this name.
    """
    if name.startswith("ours"):
        backends = {f"ours_{each.replace('-', '_')}": each for each in BACKENDS}
        painter = TextToImage.load(
            subject.model,
            variant=subject.variant,
            device="cpu",
            backend=backends.get(name, AUTO),
            cache_dir=subject.cache_dir,
        )
        return lambda spec: np.asarray(painter.generate([spec])[0].image)
    if name not in PEERS:
        raise UnknownNameError("painter", name, (*ours(), *PEERS), param="who")
    is_teacher = name == "diffusers_teacher50"
    variant = subject.teacher if is_teacher else subject.peers_variant
    dtype = torch.bfloat16 if name == "diffusers_bf16" else torch.float32
    pipe = _stock(subject.model, variant, dtype)
    if name == "diffusers_compiled":
        pipe.transformer = torch.compile(pipe.transformer)

    def paint(spec: GenerationSpec) -> np.ndarray[Any, Any]:
        asked = replace(spec, num_steps=50, guidance_scale=4.0) if is_teacher else spec
        return _paint_stock(pipe, asked)

    return paint


def rates(painters: Mapping[str, Paint], steps: int, num_rounds: int) -> dict[str, float | None]:
    """Time whole pictures in turns.

    Args:
        painters: By name.
        steps: Denoising steps of a picture; the teacher takes its own.
        num_rounds: Rounds that count, at least 1.

    Returns:
        Pictures a second of each: median, and quartiles where there are rounds enough.
    """
    rng = numpy_generator(0, "order")
    seconds: dict[str, list[float]] = {name: [] for name in painters}
    with progress("Pictures", total=(num_rounds + 1) * len(painters), unit="pictures") as report:
        for number, spec in zip(range(num_rounds + 1), _pictures(steps), strict=False):
            for name in rng.permutation(list(painters)):
                started = time.perf_counter()
                painters[str(name)](spec)
                if number:  # the first is everybody's warm-up
                    seconds[str(name)].append(time.perf_counter() - started)
                report.advance()
    figures: dict[str, float | None] = {}
    for name, each in seconds.items():
        figures[f"images_per_s_{name}"] = round(1 / statistics.median(each), 3)
        if len(each) >= 4:
            slow, _, fast = (1 / s for s in reversed(statistics.quantiles(each, n=4)))
            figures[f"images_per_s_{name}_low"] = round(slow, 3)
            figures[f"images_per_s_{name}_high"] = round(fast, 3)
    return figures


def distances(painters: Mapping[str, Paint], steps: int) -> dict[str, float | None]:
    """Compare pictures with diffusers' float32 pictures of the same prompts and noise.

    Args:
        painters: By name.
        steps: Denoising steps.

    Returns:
        Mean absolute difference in levels of 255, over four pictures.
    """
    if "diffusers_fp32" not in painters:
        return {}
    specs = [spec for spec, _ in zip(_pictures(steps, seed=1), range(4), strict=False)]
    expected = [painters["diffusers_fp32"](spec).astype(int) for spec in specs]
    found = {}
    for name, paint in painters.items():
        each = [abs(paint(s).astype(int) - e).mean() for s, e in zip(specs, expected, strict=True)]
        found[f"distance_{name}"] = round(float(np.mean(each)), 4)
    return dict(found)


def weights(subject: Subject) -> dict[str, float | None]:
    """Return the size of the transformer files, ours and the peers'.

    Args:
        subject: What is measured.
    """
    sizes = []
    for variant in (subject.variant, subject.peers_variant):
        folder = open_checkpoint(subject.model, variant=variant).transformer
        sizes.append(sum(file.stat().st_size for file in folder.glob("*.safetensors")) / MEGABYTE)
    ours_mb, peers_mb = sizes
    return {
        "weights_mb_ours": round(ours_mb, 2),
        "weights_mb_diffusers_fp32": round(peers_mb, 2),
        "weights_mb_diffusers_bf16": round(peers_mb / 2, 2),
    }


def residents(subject: Subject, steps: int) -> dict[str, float | None]:
    """Measure what a process holds after its first pictures, a process for each painter.

    Args:
        subject: What is measured.
        steps: Denoising steps.
    """
    found: dict[str, float | None] = {}
    for name in (*ours(), *PEERS):
        with get_context("spawn").Pool(1) as pool:
            found[f"resident_mb_{name}"] = pool.apply(_resident_mb, (name, subject, steps))
    return found


def _resident_mb(name: str, subject: Subject, steps: int) -> float | None:
    painter = all_painters(subject, [name]).get(name)
    if painter is None:
        return None
    for spec, _ in zip(_pictures(steps), range(2), strict=False):
        painter(spec)
    return round(resident_bytes() / MEGABYTE)


def _stock(model: str, variant: str | None, dtype: torch.dtype) -> Any:  # noqa: ANN401 - untyped
    checkpoint = open_checkpoint(model, variant=variant)
    transformer = PixArtTransformer2DModel.from_pretrained(str(checkpoint.transformer))
    pipe = DiffusionPipeline.from_pretrained(model, transformer=transformer)
    if dtype != torch.float32:
        pipe.to(dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    return pipe


def _paint_stock(pipe: Any, spec: GenerationSpec) -> np.ndarray[Any, Any]:  # noqa: ANN401 - untyped
    picture = pipe(
        spec.prompt,
        num_inference_steps=spec.num_steps,
        guidance_scale=spec.guidance_scale,
        width=spec.width,
        height=spec.height,
        generator=torch.Generator().manual_seed(spec.seed),
        use_resolution_binning=False,
        clean_caption=False,
    ).images[0]
    return np.asarray(picture)


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
    typer.run(main)
