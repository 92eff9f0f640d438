"""What the engine adds to a forward pass, and whether it changes a picture."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.accelerate.choose import BACKENDS
from pipelines.engine import Engine
from pipelines.events import Done, Event
from pipelines.intake import Intake
from pipelines.orders import Limits, Order
from pipelines.region_spec import Region
from pipelines.rows import Row, RowPainter
from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage

NUM_ROWS = 4
NUM_STEPS = 40


def tick_overhead(model: Path) -> float:
    """Measure what a tick in mid-flight costs beyond its forward pass.

    Ticks and bare passes over rows in the same state take turns in one process; CPU seconds
    count, because other work on the machine does not lengthen them.

    Args:
        model: Diffusers folder.

    Returns:
        Seconds of ticks over seconds of passes, less 1; 0.05 is 5 %.
    """
    painter = RowPainter(TextToImage.load(model, device="cpu"))
    kept: list[Row] = []
    begin = painter.begin

    def begin_and_keep(spec: GenerationSpec) -> Row:
        kept.append(begin(spec))
        return kept[-1]

    setattr(painter, "begin", begin_and_keep)  # noqa: B010  (a method is replaced on purpose)
    engine = Engine(Intake({"default": painter}, Limits(num_rows=NUM_ROWS)))
    spec = GenerationSpec(prompt="a red apple", num_steps=NUM_STEPS, guidance_scale=1.0)
    for seed in range(2 * NUM_ROWS):  # without guidance a pass takes twice as many
        engine.intake.submit([replace(spec, seed=seed)], Order(wants_steps=True), _ignore)
    for _ in range(3):
        engine.tick()
    rows = [replace(row) for row in kept]
    ticks_s = passes_s = 0.0
    for _ in range(NUM_STEPS - 6):
        started = time.process_time()
        engine.tick()
        ticked = time.process_time()
        painter.predict(rows)
        passes_s += time.process_time() - ticked
        ticks_s += ticked - started
    return ticks_s / passes_s - 1


def differences(model: Path) -> dict[str, int]:
    """Run the invariance gate over every variant of a checkpoint on every backend for the CPU.

    Each picture is painted alone, in a batch of equals, in a ragged batch, and joined mid-flight;
    with and without regions, with and without guidance.

    Args:
        model: Diffusers folder.

    Returns:
        The largest difference of a colour value, 0..255, between any two of these, by
        `VARIANT_BACKEND`.
    """
    return {
        f"{variant}_{backend}": _largest_difference(
            RowPainter(TextToImage.load(model, variant=variant, device="cpu", backend=backend))
        )
        for variant in open_checkpoint(model).info.variants
        for backend in BACKENDS.names()
    }


def _largest_difference(painter: RowPainter) -> int:
    plain = GenerationSpec(prompt="a red apple left of a blue cup", seed=5, num_steps=4)
    regions = (
        Region(high="a red apple", box=(0.0, 0.0, 0.5, 1.0)),
        Region(high="a blue cup", box=(0.4, 0.2, 1.0, 1.0), feather=0.1),
    )
    return max(
        _difference(painter, replace(spec, guidance_scale=scale))
        for spec in (plain, replace(plain, regions=regions))
        for scale in (1.0, 4.0)
    )


def _difference(painter: RowPainter, spec: GenerationSpec) -> int:
    equals = [replace(spec, seed=seed) for seed in range(6, 9)]
    ragged = [
        replace(spec, seed=9, num_steps=2, prompt="two dogs"),
        replace(spec, seed=10, num_steps=7, scheduler="ddim"),
        replace(spec, seed=11, prompt="a green tree above a yellow star, watercolor"),
    ]
    alone = np.asarray(painter.model.generate([spec])[0].image).astype(int)
    companies = [([], [spec]), ([], [spec, *equals]), ([], [spec, *ragged]), (ragged, [spec])]
    painted = [_paint(painter, before, together, spec) for before, together in companies]
    return max(int(abs(np.asarray(each.image).astype(int) - alone).max()) for each in painted)


def _paint(
    painter: RowPainter,
    before: list[GenerationSpec],
    together: list[GenerationSpec],
    wanted: GenerationSpec,
) -> GenerationResult:
    engine = Engine(Intake({"default": painter}, Limits(num_rows=NUM_ROWS)))
    ends: list[Event] = []
    for spec in before:
        engine.intake.submit([spec], Order(), _ignore)
    for _ in before:
        engine.tick()
    for spec in together:
        engine.intake.submit([spec], Order(), ends.append if spec == wanted else _ignore)
    while engine.tick():
        pass
    assert isinstance(ends[-1], Done)
    return ends[-1].results[0]


def _ignore(_: Event) -> None:
    pass
