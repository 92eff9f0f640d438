"""What regions cost: seconds over the plain prompt, for each form of attention.

    python -m benchmarks.bench_regional --output benchmarks/results/regional.json

Rounds are interleaved: in each, every case is timed once, in an order drawn anew, and compared
with the plain prompt of the same round. The figure is the median over rounds. Processor time
stands beside the wall clock, for on a busy machine the wall clock measures the neighbours. Whole
pictures are painted by the backend that a server takes; single steps, and with them the forms of
attention, by plain torch. Peak memory is that of a process that paints one kind of picture.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.command import run_command
from core.devices import peak_bytes
from core.progress import progress
from core.seeding import numpy_generator
from evaluation.record import check_output, merge
from evaluation.regional_baselines import LatentMixer
from llm_prompting.grammar_backend import plan_by_grammar
from pipelines.from_plan import with_plan
from pipelines.heard import Heard, Listener
from pipelines.region_spec import Region
from pipelines.regional_forms import Form
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage

NUM_REGIONS = (2, 4, 8)
FORMS: tuple[Form, ...] = ("auto", "packed", "gathered", "folded", "looped")
COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown")
NOUNS = ("cat", "dog", "apple", "frog", "owl", "star", "car", "heart")

Case = Callable[[], object]


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[str, typer.Option(help="Folder or hub name.")] = "checkpoints/emoji-scenes",
    num_rounds: Annotated[int, typer.Option(min=0, help="Rounds of single steps.")] = 40,
    num_images: Annotated[int, typer.Option(min=0, help="Rounds of whole pictures.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a whole picture.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a forward pass.")] = 1,
) -> None:
    """Time regions against the plain prompt."""
    check_output(output)
    torch.set_num_threads(threads)
    in_torch, served = TextToImage.load(model), TextToImage.load(model, backend="auto")
    by_step = overheads(step_cases(in_torch), num_rounds, label="Steps")
    by_image = overheads(image_cases(served, steps), num_images, label="Pictures")
    figures: dict[str, object] = {**headline(by_image)}
    figures |= {f"step_{name}": value for name, value in by_step.items()}
    figures |= {"regional_backend": served.networks.execution.backend, **peaks(model, steps)}
    merge(output, figures, module="benchmarks.bench_regional")
    print(json.dumps(figures, indent=1))


def headline(by_image: Mapping[str, float]) -> dict[str, float | None]:
    """Return the figures of whole pictures under their names in the results file.

    Args:
        by_image: Overheads by case; empty if no picture was timed.
    """
    names = {f"overhead_r{n}": f"default_planned_r{n}" for n in NUM_REGIONS}
    names |= {f"overhead_all_steps_r{n}": f"auto_planned_r{n}" for n in NUM_REGIONS}
    names |= {f"overhead_latent_r{n}": f"latent_planned_r{n}" for n in NUM_REGIONS}
    names |= {f"{ours}_cpu": f"{theirs}_cpu" for ours, theirs in names.items()}
    return {ours: by_image.get(theirs) for ours, theirs in names.items()}


def peaks(model: str, steps: int) -> dict[str, float]:
    """Return the most memory that a process holds that paints one kind of picture, twice.

    Args:
        model: Folder or hub name.
        steps: Denoising steps.

    Returns:
        regional_peak_mb_plain, _r4 and _latent_r4, in 10^6 bytes.
    """
    found = {}
    for name in ("plain", "default_planned_r4", "latent_planned_r4"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            peak = alone.submit(_peak_of, model, name, steps).result()
        short = name.replace("default_planned_", "").replace("planned_", "")
        found[f"regional_peak_mb_{short}"] = round(peak / 1e6, 1)
    return found


def _peak_of(model: str, name: str, steps: int) -> int:
    case = image_cases(TextToImage.load(model, backend="auto"), steps)[name]
    case()
    case()
    return peak_bytes()


def overheads(cases: Mapping[str, Case], num_rounds: int, *, label: str) -> dict[str, float]:
    """Time cases against the one called "plain".

    Args:
        cases: What is timed, by name.
        num_rounds: How often each is.
        label: What the progress line says.

    Returns:
        Median over rounds of the time over plain's, by name; with "_cpu" for processor time.
    """
    rng = numpy_generator(0, "order")
    ratios: dict[str, list[float]] = {}
    with progress(label, total=(num_rounds + 1) * len(cases), unit="runs") as report:
        for number in range(num_rounds + 1):
            seconds = {}
            for name in rng.permutation(list(cases)):
                seconds[str(name)] = _timed(cases[str(name)])
                report.advance()
            if number == 0:
                continue  # everybody's first time
            for name, (wall_s, cpu_s) in seconds.items():
                if name != "plain":
                    ratios.setdefault(name, []).append(wall_s / seconds["plain"][0])
                    ratios.setdefault(f"{name}_cpu", []).append(cpu_s / seconds["plain"][1])
    return {name: round(statistics.median(each), 4) for name, each in ratios.items()}


def step_cases(painter: TextToImage) -> dict[str, Case]:
    """Return one guided step each: plain, and regions by number, form and kind of edge.

    Args:
        painter: The model.
    """
    plain = painter.info.own_spec(_sentence(1))
    latents, timestep = painter.noise(plain), torch.tensor([500])

    def step(heard: Heard) -> Case:
        return lambda: painter.predict(latents, timestep, [heard], [0.0])

    cases = {"plain": step(painter.prepare(plain))}
    for num in NUM_REGIONS:
        for edge, spec in (("hard", hard(plain, num)), ("planned", planned(plain, num))):
            for form in FORMS:
                if form != "packed" or edge == "hard":
                    cases[f"{form}_{edge}_r{num}"] = step(_prepared(painter, spec, form))
    return cases


def image_cases(painter: TextToImage, steps: int) -> dict[str, Case]:
    """Return whole pictures: plain, planned regions, and the same by latent mixing.

    "default" hears regions where the model's defaults say so, "auto" in all layers and steps.

    Args:
        painter: The model.
        steps: Denoising steps.
    """
    mixer = LatentMixer(painter)
    plain = painter.info.own_spec(_sentence(1), num_steps=steps)
    cases: dict[str, Case] = {"plain": lambda: painter.generate([plain])}
    for num in NUM_REGIONS:
        spec, usual = planned(plain, num), painter.info.region_defaults
        as_served = replace(
            spec, depth=usual.depth, region_window=usual.window, base_share=usual.base_share
        )
        cases[f"default_planned_r{num}"] = partial(painter.generate, [as_served])
        cases[f"auto_planned_r{num}"] = partial(painter.generate, [spec])
        cases[f"latent_planned_r{num}"] = partial(mixer.generate, [spec])
    return cases


def hard(plain: GenerationSpec, num: int) -> GenerationSpec:
    """Return a picture of regions that end where tokens end: halves, quarters, eighths.

    Args:
        plain: The picture without regions.
        num: How many.
    """
    columns, rows = {2: (2, 1), 4: (2, 2), 8: (4, 2)}[num]
    regions = [
        Region(
            high=f"a {NOUNS[place]}",
            low=COLORS[place],
            box=(
                place % columns / columns,
                place // columns / rows,
                (place % columns + 1) / columns,
                (place // columns + 1) / rows,
            ),
        )
        for place in range(num)
    ]
    return replace(plain, prompt=plain.prompt, regions=tuple(regions))


def planned(plain: GenerationSpec, num: int) -> GenerationSpec:
    """Return a picture of regions as the grammar planner lays them out, edges between tokens.

    Args:
        plain: The picture without regions.
        num: How many.
    """
    return with_plan(plain, plan_by_grammar(_sentence(num)))


def _sentence(num: int) -> str:
    things = [f"a {color} {noun}" for color, noun in zip(COLORS, NOUNS, strict=True)][:num]
    return things[0] if num == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


@torch.inference_mode()
def _prepared(painter: TextToImage, spec: GenerationSpec, form: Form) -> Heard:
    factor = painter.info.latent_factor
    return Listener(painter.parts, painter.words, factor, form=form).prepare(spec)


def _timed(case: Case) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    case()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    run_command(main)
