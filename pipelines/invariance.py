"""Keeps a row's bits independent of the rows that go through the network with it, on the CPU."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from diffusers import PixArtTransformer2DModel
from jaxtyping import Float
from torch import Tensor

from quant.store import packed_layers
from quant.timesteps import Timesteps

WORDS_BUCKET = 16
"""Encoded texts are padded to a multiple of this many tokens, in any company."""


def keep_rows_apart(transformer: PixArtTransformer2DModel) -> None:
    """Compute one by one what would round differently in a batch.

    A matrix product over eight vectors or more of a row gives the same bits in any batch; so do
    attention, normalisation and activations. Two things do not: products over the one vector that
    tells a row its time step, for which the library takes another kernel than for several, and
    the convolution that cuts the latent picture into tokens. Both are a hundredth of the work.

    What a library does on another machine is not promised; `measure_rows` looks before anything
    is batched.

    Args:
        transformer: The network; changed in place.
    """
    cut, modulate = transformer.pos_embed.proj, transformer.adaln_single
    low_bit = {layer.timesteps for layer in packed_layers(transformer).values()} - {None}
    cut.forward = partial(_cut_apart, cut.forward, low_bit)
    modulate.forward = partial(_modulate_apart, modulate.forward, low_bit)


def padded_length(num_tokens: int) -> int:
    """Return how many tokens a text is padded to, whatever stands beside it.

    Attention over eight words rounds differently from attention over the same eight and padding.

    Args:
        num_tokens: Tokens of the longest text that one picture hears, at least 1.
    """
    return -(-num_tokens // WORDS_BUCKET) * WORDS_BUCKET


def _cut_apart(
    cut: Callable[[Tensor], Tensor],
    low_bit: Collection[Timesteps],
    latents: Float[Tensor, "b c h w"],
) -> Tensor:
    pieces = []
    for place, row in enumerate(latents.split(1)):
        with _at_row(low_bit, place):
            pieces.append(cut(row))
    return torch.cat(pieces)


def _modulate_apart(
    modulate: Callable[..., tuple[Tensor, Tensor]],
    low_bit: Collection[Timesteps],
    timestep: Tensor,
    added_cond_kwargs: dict[str, Tensor | None],
    *,
    batch_size: int,
    hidden_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    rows = []
    for place in range(batch_size):
        own = {
            name: x if x is None else x[place : place + 1] for name, x in added_cond_kwargs.items()
        }
        with _at_row(low_bit, place):
            rows.append(
                modulate(timestep[place : place + 1], own, batch_size=1, hidden_dtype=hidden_dtype)
            )
    modulation, embedded = zip(*rows, strict=True)
    return torch.cat(modulation), torch.cat(embedded)


@contextmanager
def _at_row(low_bit: Collection[Timesteps], place: int) -> Iterator[None]:
    # input ranges of low-bit layers belong to the time steps of the whole pass
    with ExitStack() as stack:
        for timesteps in low_bit:
            stack.enter_context(timesteps.of_row(place))
        yield
