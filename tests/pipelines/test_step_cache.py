"""Blocks that are skipped: where nothing new is to be seen, and nowhere else."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.hooks.first_block_cache import FBCSharedBlockState
from jaxtyping import Float
from torch import Tensor

from core.errors import GenerationCancelledError, InputError
from pipelines.engine import Engine
from pipelines.forward import Forward
from pipelines.intake import Intake
from pipelines.orders import Limits, Order
from pipelines.png import to_png_bytes
from pipelines.region_spec import Region
from pipelines.rows import RowPainter
from pipelines.spec import GenerationSpec
from pipelines.step_cache import StepCache
from pipelines.text_to_image import TextToImage

PLAIN = GenerationSpec(prompt="a red apple", seed=3, num_steps=6, guidance_scale=4.0)
CACHED = replace(PLAIN, cache_threshold=1.0)
REGION = Region(high="a blue cat", box=(0.0, 0.0, 0.5, 1.0))


@pytest.fixture
def calls(model: TextToImage) -> Iterator[Counter[str]]:
    """How often the first and the last block are computed."""
    seen: Counter[str] = Counter()
    blocks = model.parts.transformer.transformer_blocks
    handles = [
        blocks[place].ff.register_forward_hook(lambda *_, name=name: seen.update([name]))
        for name, place in (("first", 0), ("last", -1))
    ]
    yield seen
    for handle in handles:
        handle.remove()


@pytest.fixture
def predict(model: TextToImage) -> Callable[..., Float[Tensor, "1 c h w"]]:
    """Ask what the same latents hide at one time step, at any step of a picture."""
    latents, forward = model.noise(PLAIN), Forward(model.networks, 2)

    @torch.inference_mode()
    def ask(cache: StepCache | None, progress: float, spec: GenerationSpec = PLAIN) -> Tensor:
        caches, time = None if cache is None else [cache], torch.tensor([500])
        return forward(latents, time, [model.prepare(spec)], [progress], caches=caches)

    return ask


def num_skipped(model: TextToImage) -> int:
    return model.networks.execution.usage.get("cached_passes", 0)


def num_states() -> int:
    gc.collect()
    return sum(type(each) is FBCSharedBlockState for each in gc.get_objects())


def num_hooks(model: TextToImage) -> int:
    registries = [
        getattr(each, "_diffusers_hook", None) for each in model.parts.transformer.modules()
    ]
    return sum(len(registry.hooks) for registry in registries if registry)


def test_without_a_threshold_nothing_is_attached(
    make_folder: Callable[..., Path], calls: Counter[str]
) -> None:
    model = TextToImage.load(make_folder(), device="cpu")
    before = [set(vars(block)) for block in model.parts.transformer.transformer_blocks]
    model.generate([PLAIN])
    assert [set(vars(block)) for block in model.parts.transformer.transformer_blocks] == before
    assert num_skipped(model) == 0


@pytest.mark.parametrize(
    "spec",
    [PLAIN, replace(PLAIN, guidance_scale=1.0), replace(PLAIN, regions=(REGION,))],
    ids=["guided", "unguided", "regions"],
)
def test_a_threshold_that_nothing_stays_below_changes_no_bit(
    model: TextToImage, spec: GenerationSpec
) -> None:
    skipped = num_skipped(model)
    [whole], [cached] = (
        model.generate([replace(spec, cache_threshold=each)]) for each in (0.0, 1e-9)
    )
    assert whole.image.tobytes() == cached.image.tobytes()
    assert num_skipped(model) == skipped


def test_every_skipped_pass_is_counted_and_computes_one_block(
    model: TextToImage, calls: Counter[str]
) -> None:
    skipped = num_skipped(model)
    model.generate([CACHED, replace(CACHED, seed=4, guidance_every=2), PLAIN])
    num_passes = 12 + 9
    found = num_skipped(model) - skipped
    assert 0 < found < num_passes
    # the picture without a cache asks both sides in one call
    assert calls == {"first": num_passes + 6, "last": num_passes - found + 6}


def test_where_nothing_changes_what_was_computed_comes_again(
    predict: Callable[..., Tensor], calls: Counter[str]
) -> None:
    cache = StepCache(0.1, 6)
    first, second = predict(cache, 0.0), predict(cache, 1 / 6)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, predict(None, 0.0))
    assert calls == {"first": 2 + 2 + 1, "last": 2 + 0 + 1}


def test_words_that_only_later_blocks_hear_are_heard_at_once(
    model: TextToImage, predict: Callable[..., Tensor], calls: Counter[str]
) -> None:
    spec = replace(PLAIN, regions=(REGION,), region_window=(0.5, 1.0), depth="release")
    cache = StepCache(1.0, 6)
    for progress in (0.0, 1 / 6, 0.5, 4 / 6):
        predict(cache, progress, spec)
    assert calls == {"first": 8, "last": 4}
    torch.testing.assert_close(predict(cache, 5 / 6, spec), predict(None, 5 / 6, spec))


def test_a_step_that_is_computed_twice_is_the_same_twice(model: TextToImage) -> None:
    painter = RowPainter(model)
    row = painter.begin(CACHED)
    for _ in range(CACHED.num_steps):
        first, again = painter.predict([row])[0], painter.predict([row])[0]
        assert torch.equal(first, again)
        painter.apply(row, first)
    [whole] = model.generate([CACHED])
    assert painter.decode([row])[0].tobytes() == whole.image.tobytes()


@pytest.mark.parametrize("at_call", range(1, 13))
def test_a_pass_that_fails_in_the_middle_leaves_nothing(model: TextToImage, at_call: int) -> None:
    painter = RowPainter(model)
    row, spec = painter.begin(CACHED), CACHED
    calls = iter(range(1, 1000))

    def fail(*_: object) -> None:
        if next(calls) == at_call:
            raise RuntimeError("the device is full")

    last = model.parts.transformer.transformer_blocks[-1].attn2
    handle = last.register_forward_hook(fail)
    while row.num_done < spec.num_steps:
        try:
            [prediction] = painter.predict([row])
        except RuntimeError:
            assert num_hooks(model) == 0
        else:
            painter.apply(row, prediction)
    handle.remove()
    [whole] = model.generate([spec])
    assert painter.decode([row])[0].tobytes() == whole.image.tobytes()


def test_nothing_is_left_of_pictures_that_are_finished_failed_or_cancelled(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = num_states()
    painter = RowPainter(model)
    row = painter.begin(CACHED)
    painter.predict([row])
    assert num_states() > before
    del row
    assert num_states() == before
    model.generate([CACHED])
    assert num_states() == before
    asked = iter([False] * 3 + [True])
    with pytest.raises(GenerationCancelledError):
        model.generate([CACHED], is_cancelled=lambda: next(asked))
    assert num_states() == before
    with monkeypatch.context() as patch:
        patch.setattr(model, "decode", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.generate([CACHED])
    assert num_states() == before
    assert num_hooks(model) == 0


def test_an_engine_keeps_nothing_of_requests_that_ended(model: TextToImage) -> None:
    before = num_states()
    intake = Intake({"default": RowPainter(model)}, Limits(num_rows=4, max_waiting=9))
    engine = Engine(intake)
    kept = intake.submit([CACHED], Order(), lambda _: None)
    left = intake.submit([CACHED, replace(CACHED, seed=4)], Order(), lambda _: None)
    for _ in range(5):
        engine.tick()
    assert num_states() > before
    intake.cancel(left)
    while engine.tick():
        pass
    del kept, left
    assert num_states() == before


def test_the_shipped_teacher_skips_more_the_more_is_let_through(repository: Path) -> None:
    folder = repository / "checkpoints" / "emoji-scenes"
    model = TextToImage.load(folder, variant="teacher", device="cpu")
    spec = model.info.own_spec("a red apple", seed=1)
    counts = []
    for threshold in (0.05, 0.2, 0.4):
        before = num_skipped(model)
        model.generate([replace(spec, cache_threshold=threshold)])
        counts.append(num_skipped(model) - before)
    assert counts[0] < counts[1] < counts[2] < 2 * spec.num_steps


def test_rows_of_a_low_bit_student_keep_their_bits_beside_one_with_a_cache(
    repository: Path,
) -> None:
    folder = repository / "checkpoints" / "emoji-scenes"
    painter = RowPainter(TextToImage.load(folder, variant="low-bit", device="cpu"))
    spec = painter.info.own_spec("a red apple")
    specs = [spec, replace(spec, cache_threshold=1.0), replace(spec, seed=1, cache_threshold=0.3)]
    rows = [painter.begin(each) for each in specs]
    while rows[0].num_done < spec.num_steps:
        for row, prediction in zip(rows, painter.predict(rows), strict=True):
            painter.apply(row, prediction)
    for row in rows:
        [alone] = painter.model.generate([row.spec])
        assert np.array_equal(np.asarray(painter.decode([row])[0]), np.asarray(alone.image))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_threshold_that_cannot_be_is_refused(model: TextToImage, threshold: float) -> None:
    with pytest.raises(InputError, match="give a relative change from 0") as caught:
        model.check(replace(PLAIN, cache_threshold=threshold))
    assert caught.value.param == "cache_threshold"


def test_a_model_of_one_block_has_nothing_to_skip(make_folder: Callable[..., Path]) -> None:
    model = TextToImage.load(make_folder(num_layers=1), device="cpu")
    model.check(PLAIN)
    with pytest.raises(InputError, match="has one block") as caught:
        model.check(CACHED)
    assert caught.value.param == "cache_threshold"


def test_a_cache_travels_in_the_file_and_is_left_out_where_there_is_none(
    model: TextToImage,
) -> None:
    with_cache, without = (to_png_bytes(model.generate([each])[0]) for each in (CACHED, PLAIN))
    assert b'"cache_threshold": 1.0' in with_cache
    assert b"cache_threshold" not in without
