"""The invariance gate: a picture is the same alone, in any company, and joined mid-flight."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import DeviceMemoryError, NumericsError
from pipelines.accelerate.choose import AUTO
from pipelines.engine import Engine
from pipelines.events import Done, Event, Failed
from pipelines.intake import Intake
from pipelines.invariance import WORDS_BUCKET, padded_length
from pipelines.orders import Limits, Order
from pipelines.png import to_png_bytes
from pipelines.region_spec import Region
from pipelines.rows import Row, RowPainter, RowTime, best_num_rows, measure_rows
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage
from quant.store import packed_layers

PLAIN = GenerationSpec(prompt="a red apple", seed=3, num_steps=4, guidance_scale=4.0)
LONG = "a red apple left of the blue cat above two green dog , watercolor , pixel art"
REGIONS = (
    Region(high="a red apple", box=(0.0, 0.0, 0.5, 1.0)),
    Region(high="the cat", low="a blue cat", box=(0.3, 0.2, 1.0, 1.0), feather=0.1, negative="dog"),
)
RAGGED = [
    replace(PLAIN, seed=11, prompt=LONG, num_steps=3),
    replace(PLAIN, seed=12, guidance_scale=7.5, scheduler="ddim"),
    replace(PLAIN, seed=17, guidance_every=3, num_steps=5),
    replace(PLAIN, seed=18, cache_threshold=1.0, num_steps=5),
    replace(PLAIN, seed=19, regions=REGIONS, cache_threshold=0.5, region_window=(0.3, 0.8)),
    replace(PLAIN, seed=13, guidance_scale=1.0, num_steps=2),
    replace(PLAIN, seed=14, regions=REGIONS, num_steps=5),
    replace(PLAIN, seed=15, negative_prompt="two dog", num_steps=1),
    replace(PLAIN, seed=16, regions=REGIONS[:1], guidance_scale=1.0, region_window=(0.0, 0.5)),
]
KINDS = {
    "plain": PLAIN,
    "unguided": replace(PLAIN, guidance_scale=1.0),
    "regions": replace(PLAIN, regions=REGIONS, depth="progressive"),
    "guided at times": replace(PLAIN, guidance_every=2),
    "cached": replace(PLAIN, cache_threshold=0.5, num_steps=6),
    "cached regions": replace(PLAIN, cache_threshold=1.0, regions=REGIONS, guidance_every=2),
    "long": replace(PLAIN, prompt=LONG, negative_prompt="two dog below the green cat"),
}


class Run:
    """An engine on a real model, ticked by hand."""

    def __init__(self, painter: RowPainter, num_rows: int = 4) -> None:
        self.intake = Intake({"default": painter}, Limits(num_rows=num_rows, max_waiting=100))
        self.engine = Engine(self.intake)
        self.ends: dict[GenerationSpec, Event] = {}

    def submit(self, *specs: GenerationSpec) -> None:
        for spec in specs:

            def note(event: Event, spec: GenerationSpec = spec) -> None:
                self.ends[spec] = event

            self.intake.submit([spec], Order(), note)

    def finish(self) -> None:
        while self.engine.tick():
            pass

    def png(self, spec: GenerationSpec) -> bytes:
        end = self.ends[spec]
        assert isinstance(end, Done)
        return to_png_bytes(end.results[0])


@pytest.fixture(scope="module")
def painter(model: TextToImage) -> RowPainter:
    return RowPainter(model)


@pytest.mark.parametrize("kind", KINDS)
def test_alone_in_a_batch_of_equals_and_in_the_plain_pipeline_are_one_file(
    painter: RowPainter, kind: str
) -> None:
    spec = KINDS[kind]
    alone, equals = Run(painter), Run(painter)
    alone.submit(spec)
    alone.finish()
    equals.submit(*[replace(spec, seed=seed) for seed in range(4)])
    equals.finish()
    expected = to_png_bytes(painter.model.generate([spec])[0])
    assert alone.png(spec) == expected
    assert equals.png(spec) == expected
    assert equals.intake.counters.passes == spec.num_steps


@pytest.mark.parametrize("kind", KINDS)
def test_joined_mid_flight_in_a_ragged_batch_is_the_same_file(
    painter: RowPainter, kind: str
) -> None:
    spec = KINDS[kind]
    run = Run(painter)
    run.submit(*RAGGED, replace(spec, seed=77, num_steps=9))
    for _ in range(9):
        run.engine.tick()
    run.submit(spec)
    run.engine.tick()
    run.submit(replace(spec, seed=78))
    run.finish()
    for asked in (spec, *RAGGED):
        assert run.png(asked) == to_png_bytes(painter.model.generate([asked])[0])


def test_one_pass_may_mix_steps_guidance_words_and_regions_and_keeps_every_bit(
    painter: RowPainter,
) -> None:
    rows = [painter.begin(spec) for spec in RAGGED]
    for row in rows:
        for _ in range(row.spec.num_steps // 2):
            painter.apply(row, painter.predict([row])[0])
    alike = [row for row in rows if padded_length(len(row.heard.prompt)) == WORDS_BUCKET]
    assert len(alike) >= 5
    together = painter.predict(alike)
    alone = [painter.predict([row])[0] for row in alike]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


def test_swapped_weights_never_mix(make_folder: Callable[..., Path], painter: RowPainter) -> None:
    other = RowPainter(TextToImage.load(make_folder(num_layers=3), device="cpu"))
    run = Run(painter)
    before = [replace(PLAIN, seed=seed) for seed in (1, 2)]
    after = [replace(PLAIN, seed=seed) for seed in (3, 4)]
    run.submit(*before)
    run.engine.tick()
    run.intake.swap("default", other)
    run.submit(*after)
    run.finish()
    for specs, its_painter in ((before, painter), (after, other)):
        for spec in specs:
            end = run.ends[spec]
            assert isinstance(end, Done)
            assert end.results[0].revision == its_painter.info.revision
            assert run.png(spec) == to_png_bytes(its_painter.model.generate([spec])[0])


def test_every_size_of_pass_keeps_every_bit_on_this_machine(painter: RowPainter) -> None:
    for spec in KINDS.values():
        measured = measure_rows(painter, spec, (1, 2, 3, 8), num_repeats=1)
        assert [time.num_rows for time in measured] == [1, 2, 3, 8]
        assert all(time.is_exact for time in measured)


def test_a_pass_is_as_large_as_pays_and_as_keeps_its_bits() -> None:
    times = [(1, 10.0, True), (2, 8.0, True), (4, 7.9, True), (8, 4.0, False)]
    measured = [RowTime(num_rows=n, seconds_per_row=s, is_exact=e) for n, s, e in times]
    assert best_num_rows(measured, exact=True) == 2
    assert best_num_rows(measured, exact=False) == 8
    assert best_num_rows([], exact=True) == 1


def test_a_budget_is_counted_in_pictures_of_the_model(painter: RowPainter) -> None:
    assert painter.measure_budget(3) == 3 * 2 * 128 * 128
    assert painter.measure_budget(None) / (2 * 128 * 128) in {1, 2, 4}


def test_a_preview_is_the_clean_picture_that_the_solver_expects(painter: RowPainter) -> None:
    row = painter.begin(replace(PLAIN, num_steps=6))
    finished = to_png_bytes(painter.model.generate([row.spec])[0])
    pictures = []
    for _ in range(6):
        painter.apply(row, painter.predict([row])[0])
        pictures.append(np.asarray(painter.preview(row)).astype(int))
    final = np.asarray(painter.decode([row])[0]).astype(int)
    errors = [abs(picture - final).mean() for picture in pictures]
    # The last step of the solver goes to its estimate, so the last preview is the picture.
    assert errors[-1] == 0
    assert errors[-2] < errors[0]
    assert finished


def test_a_full_device_is_told_as_such_and_leaves_the_row_as_it_was(
    painter: RowPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = painter.begin(PLAIN)

    def overflow(*_: object, **__: object) -> None:
        torch.empty(2**52)

    with monkeypatch.context() as patched:
        patched.setattr(painter.model, "predict", overflow)
        with pytest.raises(DeviceMemoryError) as cpu:
            painter.predict([row])
    assert cpu.value.retryable
    assert row.num_done == 0
    painter.free_memory()
    assert len(painter.predict([row])) == 1


def test_a_bug_is_not_taken_for_a_full_device(
    painter: RowPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = painter.begin(PLAIN)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(painter.model, "predict", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        painter.predict([row])


def test_not_a_number_is_named_and_fails_its_own_row_only(
    painter: RowPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(painter)
    broken, neighbour = PLAIN, replace(PLAIN, seed=4)
    begin = painter.begin

    def begin_broken(spec: GenerationSpec) -> Row:
        row = begin(spec)
        return replace(row, latents=row.latents * torch.nan) if spec == broken else row

    monkeypatch.setattr(painter, "begin", begin_broken)
    run.submit(broken, neighbour)
    run.finish()
    end = run.ends[broken]
    assert isinstance(end, Failed)
    assert isinstance(end.error, NumericsError)
    monkeypatch.undo()
    assert run.png(neighbour) == to_png_bytes(painter.model.generate([neighbour])[0])


def test_tiles_are_nearly_the_same_picture_and_leave_nothing_behind(painter: RowPainter) -> None:
    row = painter.begin(replace(PLAIN, num_steps=1))
    painter.apply(row, painter.predict([row])[0])
    (whole,), (tiled,), (again,) = (painter.decode([row], tiled=t) for t in (False, True, False))
    assert tiled.size == whole.size
    assert abs(np.asarray(whole).astype(int) - np.asarray(tiled).astype(int)).mean() < 40
    assert again.tobytes() == whole.tobytes()


def test_rows_of_a_low_bit_model_keep_their_bits_at_different_steps(repository: Path) -> None:
    folder = repository / "checkpoints" / "emoji-scenes"
    painter = RowPainter(TextToImage.load(folder, variant="low-bit", device="cpu"))
    layers = packed_layers(painter.model.parts.transformer).values()
    assert max(layer.form.num_ranges for layer in layers) == 4  # or steps would not matter
    spec = GenerationSpec(prompt="a red apple", num_steps=4, guidance_scale=1.0)
    rows = [painter.begin(replace(spec, seed=seed, num_steps=3 + seed)) for seed in range(2)]
    painter.apply(rows[0], painter.predict(rows[:1])[0])
    together = painter.predict(rows)
    for row, prediction in zip(rows, together, strict=True):
        assert torch.equal(prediction, painter.predict([row])[0])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", AUTO])
def test_every_shipped_variant_passes_the_gate(repository: Path, backend: str) -> None:
    folder = repository / "checkpoints" / "emoji-scenes"
    for variant in open_checkpoint(folder).info.variants:
        model = TextToImage.load(folder, variant=variant, device="cpu", backend=backend)
        painter = RowPainter(model)
        info = painter.info
        spec = GenerationSpec(
            prompt="a red apple left of a blue cup",
            seed=5,
            num_steps=min(3, info.default_steps),
            guidance_scale=info.default_guidance,
            regions=(Region(high="a red apple", box=(0.0, 0.0, 0.5, 1.0)),),
        )
        for asked in (spec, replace(spec, regions=())):
            run = Run(painter)
            run.submit(replace(asked, seed=6, num_steps=4))
            run.engine.tick()
            run.submit(asked, replace(asked, seed=7, prompt="a dog"))
            run.finish()
            assert run.png(asked) == to_png_bytes(model.generate([asked])[0])
        assert not painter.execution.fallbacks
