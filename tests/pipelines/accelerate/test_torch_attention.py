"""Plain torch attends as diffusers does, and asks for keys and values of words once a picture."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from pipelines.accelerate.torch_attention import fast_attention
from pipelines.region_spec import Region
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage

PLAIN = GenerationSpec(prompt="a red apple", seed=3, num_steps=3, guidance_scale=4.0)
OTHER = replace(PLAIN, prompt="the blue cat , pixel art", seed=4)
REGIONS = (Region(high="a red apple", box=(0.0, 0.0, 0.5, 1.0)),)


@pytest.fixture
def model(load: Callable[..., TextToImage]) -> TextToImage:
    return load("torch")


@contextmanager
def counted_keys(model: TextToImage) -> Iterator[Counter[int]]:
    """Count how often each layer is asked for the keys of words."""
    calls: Counter[int] = Counter()
    hooks = [
        block.attn2.to_k.register_forward_hook(
            lambda *_, number=number: calls.update([number])  # type: ignore[misc]
        )
        for number, block in enumerate(model.parts.transformer.transformer_blocks)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("spec", [PLAIN, replace(PLAIN, guidance_scale=1.0)])
def test_keys_of_words_are_computed_once_a_picture(
    model: TextToImage, spec: GenerationSpec
) -> None:
    with counted_keys(model) as calls:
        model.generate([spec])
    assert set(calls.values()) == {1}
    assert len(calls) == len(model.parts.transformer.transformer_blocks)


def test_a_step_gives_the_bits_of_diffusers_own_processors(model: TextToImage) -> None:
    transformer = model.parts.transformer
    tokens = torch.randn(
        2, transformer.config["in_channels"], 8, 8, generator=torch.Generator().manual_seed(0)
    )
    words = torch.randn(
        2, 16, transformer.config["caption_channels"], generator=torch.Generator().manual_seed(1)
    )
    mask = (torch.arange(16) < torch.tensor([[9], [16]])).float()

    @torch.inference_mode()
    def step() -> torch.Tensor:
        sizes = {"resolution": None, "aspect_ratio": None}
        return transformer(
            tokens,
            encoder_hidden_states=words,
            encoder_attention_mask=mask,
            timestep=torch.tensor([500, 500]),
            added_cond_kwargs=sizes,
            return_dict=False,
        )[0]

    stock = step()
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    with fast_attention(transformer, kept):
        assert torch.equal(step(), stock)
        assert torch.equal(step(), stock)  # by what was kept
    assert len(kept) == len(transformer.transformer_blocks)
    assert torch.equal(step(), stock)


def test_pictures_in_flight_together_do_not_hear_each_others_words(model: TextToImage) -> None:
    specs = [PLAIN, OTHER, replace(PLAIN, regions=REGIONS), replace(OTHER, seed=5)]
    alone = [model.generate([spec])[0].image.tobytes() for spec in specs]
    together = [each.image.tobytes() for each in model.generate(specs)]
    assert together == alone
    assert len(set(alone)) == len(specs)


def test_the_processors_come_back_even_after_an_error(model: TextToImage) -> None:
    blocks = model.parts.transformer.transformer_blocks
    stock = [layer.processor for block in blocks for layer in (block.attn1, block.attn2)]
    with (
        pytest.raises(RuntimeError, match="in the midst"),
        fast_attention(model.parts.transformer, None),
    ):
        raise RuntimeError("in the midst")
    assert [layer.processor for block in blocks for layer in (block.attn1, block.attn2)] == stock
