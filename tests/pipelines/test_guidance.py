"""Guidance that is asked for at some steps only."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import InputError
from pipelines.forward import Forward
from pipelines.guidance import Guide
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage

SPEC = GenerationSpec(prompt="a red apple", seed=3, num_steps=6, guidance_scale=4.0)


@pytest.fixture
def num_rows(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every pass of the transformer."""
    really, seen = model.networks.denoise, list[int]()

    def denoise(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(latents))
        return really(latents, *rest)

    monkeypatch.setattr(model.networks, "denoise", denoise)
    return seen


@pytest.mark.parametrize(
    ("every", "rows"),
    [(1, [2] * 6), (2, [2, 1] * 3), (4, [2, 1, 1, 1, 2, 1]), (9, [2, 1, 1, 1, 1, 1])],
)
def test_the_negative_side_is_asked_at_every_so_many_steps(
    model: TextToImage, num_rows: list[int], every: int, rows: list[int]
) -> None:
    model.generate([replace(SPEC, guidance_every=every)])
    assert num_rows == rows


def test_between_two_questions_the_last_difference_guides(model: TextToImage) -> None:
    heard, latents = model.prepare(SPEC), model.noise(SPEC)
    guide, times = Guide(2, 2), [torch.tensor([900]), torch.tensor([400])]
    with torch.inference_mode():
        forward = Forward(model.networks, 2)
        forward(latents, times[0], [heard], [0.0], [guide])
        found = forward(latents, times[1], [heard], [0.5], [guide])
        alone = replace(heard, negative=None)
        words = [forward(latents, time, [alone], [0.0]) for time in times]
        unguided = replace(heard, prompt=heard.negative, negative=None)
        without = forward(latents, times[0], [unguided], [0.0])
    torch.testing.assert_close(found, words[1] + 3.0 * (words[0] - without))


def test_a_rescaled_step_has_the_spread_of_its_words_alone(model: TextToImage) -> None:
    heard, latents, time = model.prepare(SPEC), model.noise(SPEC), torch.tensor([900])
    with torch.inference_mode():
        forward = Forward(model.networks, 2)
        plain, whole = (
            forward(latents, time, [replace(heard, guidance_rescale=share)], [0.0])
            for share in (0.0, 1.0)
        )
        words = forward(latents, time, [replace(heard, negative=None)], [0.0])
    assert torch.equal(plain, forward(latents, time, [heard], [0.0]))
    torch.testing.assert_close(whole.std(), words.std())
    torch.testing.assert_close(whole / whole.std(), plain / plain.std())


@pytest.mark.parametrize(
    ("rescale", "scale"), [(-0.1, 4.0), (1.1, 4.0), (float("nan"), 4.0), (0.7, 1.0)]
)
def test_a_rescale_that_cannot_be_is_refused(
    model: TextToImage, rescale: float, scale: float
) -> None:
    with pytest.raises(InputError, match="guidance_rescale") as caught:
        model.check(replace(SPEC, guidance_rescale=rescale, guidance_scale=scale))
    assert caught.value.param == "guidance_rescale"


def test_a_picture_of_one_step_has_nothing_to_keep(model: TextToImage) -> None:
    once = replace(SPEC, num_steps=1)
    pictures = [model.generate([each])[0].image for each in (once, replace(once, guidance_every=7))]
    assert np.array_equal(*map(np.asarray, pictures))


def test_a_step_that_is_computed_twice_is_the_same_twice(model: TextToImage) -> None:
    heard, latents, guide = model.prepare(SPEC), model.noise(SPEC), Guide(2, 6)
    shares: Sequence[float] = (0.0, 0.0, 1 / 6, 1 / 6)
    with torch.inference_mode():
        first, again, second, once_more = (
            Forward(model.networks, 2)(latents, torch.tensor([500]), [heard], [share], [guide])
            for share in shares
        )
    assert torch.equal(first, again)
    assert torch.equal(second, once_more)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"guidance_every": 0}, "guidance_every 0: give a number of steps from 1"),
        ({"guidance_every": 2, "guidance_scale": 1.0}, "no effect at guidance_scale 1"),
    ],
)
def test_guidance_that_cannot_be_is_refused(
    model: TextToImage, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told) as caught:
        model.check(replace(SPEC, **changes))
    assert caught.value.param == "guidance_every"
