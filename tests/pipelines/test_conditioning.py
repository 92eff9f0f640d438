from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from pipelines.accelerate.networks import TorchNetworks
from pipelines.components import Components, load_components
from pipelines.conditioning import PromptEncoder, stack_words
from pipelines.invariance import WORDS_BUCKET
from pipelines.store import open_checkpoint

TEXTS = ["a red apple", "", "Two blue cat above the green dog , watercolor .  "]


@pytest.fixture
def parts(folder: Path) -> Components:
    return load_components(open_checkpoint(folder), device="cpu")


@pytest.fixture
def encoder(parts: Components) -> PromptEncoder:
    networks = TorchNetworks(parts, latent_factor=8)
    return PromptEncoder(parts.tokenizer, networks.encode, max_num_texts=2)


@pytest.mark.parametrize("text", TEXTS)
def test_unpadded_words_equal_stock_padded_words(
    folder: Path, encoder: PromptEncoder, text: str
) -> None:
    pipe = DiffusionPipeline.from_pretrained(folder)
    with torch.inference_mode():
        padded, mask, *_ = pipe.encode_prompt(text, do_classifier_free_guidance=False)
        ours = encoder.encode(text)
    assert len(ours) == mask.sum()
    torch.testing.assert_close(ours, padded[0, : len(ours)], atol=2e-6, rtol=1e-5)


def test_a_text_is_encoded_once_and_the_oldest_forgotten(
    encoder: PromptEncoder, parts: Components
) -> None:
    calls = []
    parts.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    for text in ("a cat", "A CAT ", "a dog", "a cat"):
        encoder.encode(text)
    assert len(calls) == 2
    encoder.encode("a red apple")
    encoder.encode("a cat")
    assert len(calls) == 3
    encoder.encode("a dog")
    assert len(calls) == 4


def test_tokens_are_counted_with_the_end_mark(encoder: PromptEncoder) -> None:
    assert [encoder.count_tokens(text) for text in TEXTS] == [4, 1, 11]
    assert encoder.count_tokens("cat " * 500) == 501


def test_a_text_that_was_counted_is_not_split_again(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encoder.count_tokens("a red cat") == 4
    monkeypatch.setattr(encoder, "_tokenizer", None)
    assert encoder.count_tokens("A red cat ") == len(encoder.encode("a red cat")) == 4


def test_words_without_tokens_are_named_once_each(encoder: PromptEncoder) -> None:
    found = encoder.unknown_words("A RED zebra, a zebra_crossing left of two cats")
    assert found == ["zebra", "crossing", "cats"]
    assert encoder.unknown_words("a red apple, a cat") == []


def test_stacked_words_are_masked_where_nothing_was_said() -> None:
    words = stack_words([torch.ones(2, 3), torch.ones(4, 3), torch.ones(1, 3)])
    assert words.mask.sum(1).tolist() == [2, 4, 1]
    assert words.vectors.shape == (3, WORDS_BUCKET, 3)
    assert torch.equal(words.vectors.sum(2) > 0, words.mask)
