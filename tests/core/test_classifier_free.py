"""Guidance, and the way back to the spread of a prediction with words."""

import pytest
import torch

from core.classifier_free import guided
from core.seeding import torch_generator

WORDS, WITHOUT = torch.randn((2, 3, 4, 8, 8), generator=torch_generator(0))


def test_scale_one_changes_nothing() -> None:
    torch.testing.assert_close(guided(WORDS, WITHOUT, scale=1.0, rescale=0.7), WORDS)


def test_plain_guidance_is_the_published_equation() -> None:
    found = guided(WORDS, WITHOUT, scale=4.0, rescale=0.0)
    torch.testing.assert_close(found, WITHOUT + 4.0 * (WORDS - WITHOUT))


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_rescaling_mixes_both_spreads_and_keeps_the_direction(rescale: float) -> None:
    plain = guided(WORDS, WITHOUT, scale=4.0, rescale=0.0)
    found = guided(WORDS, WITHOUT, scale=4.0, rescale=rescale)
    for each, before, words in zip(found, plain, WORDS, strict=True):
        torch.testing.assert_close(each.std(), rescale * words.std() + (1 - rescale) * before.std())
        torch.testing.assert_close(each / each.std(), before / before.std())


def test_each_picture_is_rescaled_by_its_own_spread() -> None:
    both = guided(WORDS, WITHOUT, scale=4.0, rescale=0.7)
    for place, alone in enumerate(zip(WORDS, WITHOUT, strict=True)):
        torch.testing.assert_close(both[place], guided(*alone, scale=4.0, rescale=0.7))


def test_a_prediction_without_spread_stays_as_it_is() -> None:
    flat = torch.zeros_like(WORDS)
    assert torch.equal(guided(flat, flat, scale=4.0, rescale=0.7), flat)
