from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.images.mapping import Assignment, to_assignment, to_card
from app.schemas.images import MAX_SEED, ImageRequest
from app.settings import Settings
from core.errors import InputError
from pipelines.spec import GenerationSpec
from tests.app.conftest import SteppedPainter

PAINTER = SteppedPainter()
SETTINGS = Settings()


def _assignment(**fields: Any) -> Assignment:
    body = ImageRequest(prompt="a red apple", **fields)
    return to_assignment(body, {"default": PAINTER}, SETTINGS)


def _specs(**fields: Any) -> tuple[GenerationSpec, ...]:
    return _assignment(**fields).specs


@given(st.integers(0, MAX_SEED), st.integers(1, 10))
def test_seeds_count_up_and_nothing_else_differs(seed: int, num_images: int) -> None:
    if seed + num_images - 1 > MAX_SEED:
        with pytest.raises(InputError, match="leaves no room"):
            _specs(seed=seed, n=num_images)
        return
    specs = _specs(seed=seed, n=num_images)
    assert [spec.seed for spec in specs] == list(range(seed, seed + num_images))
    alone = [_specs(seed=spec.seed)[0] for spec in specs]
    assert list(specs) == alone


def test_what_is_not_said_is_the_models_own() -> None:
    [spec] = _specs()
    info = PAINTER.info
    assert (spec.num_steps, spec.guidance_scale) == (info.default_steps, info.default_guidance)
    assert (spec.width, spec.height) == info.sizes[0]
    assert spec == _specs(size="auto", quality="auto", seed=spec.seed)[0]


def test_guidance_goes_as_far_back_as_is_said() -> None:
    assert _specs()[0].guidance_rescale == PAINTER.info.default_guidance_rescale
    assert _specs(guidance=4.0, guidance_rescale=0.5)[0].guidance_rescale == 0.5


def test_blocks_are_skipped_only_where_it_is_asked_for() -> None:
    assert _specs()[0].cache_threshold == 0
    assert _specs(cache_threshold=0.2)[0].cache_threshold == 0.2


def test_a_size_is_width_by_height() -> None:
    [spec] = _specs(size="256x128")
    assert (spec.width, spec.height) == (256, 128)


def test_drawn_seeds_differ_and_survive_any_json_reader() -> None:
    seeds = [_specs()[0].seed for _ in range(50)]
    assert len(set(seeds)) > 45
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_a_refusal_of_the_model_names_the_field_of_the_body() -> None:
    class Picky(SteppedPainter):
        def check(self, spec: GenerationSpec) -> None:
            raise InputError(f"{spec.num_steps} steps do not fit.", param="num_steps")

    with pytest.raises(InputError) as caught:
        to_assignment(ImageRequest(prompt="a red apple"), {"default": Picky()}, SETTINGS)
    assert caught.value.param == "steps"


def test_cost_is_image_tokens_times_steps_of_all_pictures() -> None:
    assignment = _assignment(n=3, size="256x128", steps=7, negative_prompt="a blue dog")
    assert assignment.image_tokens == (256 // 16) * (128 // 16)
    assert assignment.cost_units == 3 * 7 * assignment.image_tokens
    assert assignment.text_tokens == 6


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"partial_images": 2}, "partial_images"),
        ({"stream": True, "response_format": "url"}, "response_format"),
        ({"output_compression": 40}, "output_compression"),
        ({"output_format": "png", "output_compression": 40}, "output_compression"),
        ({"quality": "high", "steps": 3}, "steps"),
        ({"quality": "low", "variant": "default"}, "variant"),
        ({"variant": "teacher"}, "variant"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InputError) as caught:
        _assignment(**fields)
    assert caught.value.param == param


def test_a_card_shows_the_servers_limits() -> None:
    card = to_card({"default": PAINTER}, Settings(max_steps=30), loaded_at=5)
    assert (card.max_steps, card.created, card.sizes) == (30, 5, ["128x128", "256x128"])


def test_a_variant_that_is_shipped_and_not_served_is_told_apart_from_an_unknown_one() -> None:
    painter = SteppedPainter()
    painter.info = replace(painter.info, variants=("default", "rdd-4"))
    body = ImageRequest(prompt="a red apple", variant="rdd-4")
    with pytest.raises(InputError, match="FEWSTROKE_SERVE_VARIANTS=all") as caught:
        to_assignment(body, {"default": painter}, SETTINGS)
    assert caught.value.param == "variant"
    with pytest.raises(InputError, match="Unknown variant 'nothing'"):
        _assignment(variant="nothing")
