import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mapping import to_card, to_response, to_specs
from app.schemas import MAX_SEED, ImageRequest
from app.settings import Settings
from core.errors import InputError
from pipelines.spec import GenerationSpec
from tests.app.conftest import SteppedGenerator

GENERATOR = SteppedGenerator()
SETTINGS = Settings()


def _specs(**fields: Any) -> tuple[GenerationSpec, ...]:
    return to_specs(ImageRequest(prompt="a red apple", **fields), GENERATOR, SETTINGS)


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
    info = GENERATOR.info
    assert (spec.num_steps, spec.guidance_scale) == (info.default_steps, info.default_guidance)
    assert (spec.width, spec.height) == info.sizes[0]
    assert spec == _specs(size="auto", quality="auto", seed=spec.seed)[0]


def test_a_size_is_width_by_height() -> None:
    [spec] = _specs(size="256x128")
    assert (spec.width, spec.height) == (256, 128)


def test_drawn_seeds_differ_and_survive_any_json_reader() -> None:
    seeds = [_specs()[0].seed for _ in range(50)]
    assert len(set(seeds)) > 45
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_a_refusal_of_the_model_names_the_field_of_the_body() -> None:
    class Picky(SteppedGenerator):
        def check(self, spec: GenerationSpec) -> None:
            raise InputError(f"{spec.num_steps} steps do not fit.", param="num_steps")

    with pytest.raises(InputError) as caught:
        to_specs(ImageRequest(prompt="a red apple"), Picky(), SETTINGS)
    assert caught.value.param == "steps"


def test_the_answer_counts_tokens_and_carries_the_files() -> None:
    specs = _specs(n=2, seed=3, size="256x128", negative_prompt="a blue dog")
    results = GENERATOR.generate(
        specs, on_step=lambda _done, _all: None, is_cancelled=lambda: False
    )
    answer = to_response(results, [b"one", b"two"], GENERATOR, {"total": 1.23456})
    assert answer.usage.output_tokens == 2 * (256 // 16) * (128 // 16)
    assert answer.usage.input_tokens == 6
    assert [base64.b64decode(image.b64_json) for image in answer.data] == [b"one", b"two"]
    assert [image.seed for image in answer.data] == [3, 4]
    assert answer.timings_s["total"] == 1.2346
    assert answer.size == "256x128"


def test_a_card_shows_the_servers_limits() -> None:
    card = to_card(GENERATOR.info, Settings(max_steps=30), loaded_at=5)
    assert (card.max_steps, card.created, card.sizes) == (30, 5, ["128x128", "256x128"])
