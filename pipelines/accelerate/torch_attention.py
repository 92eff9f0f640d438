"""Attention of plain torch: the product by shape, and keys and values of words kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffusers import PixArtTransformer2DModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor

from pipelines.attend import attend, keys_values, split_heads
from pipelines.attention import is_plain
from pipelines.conditioning import Words, stack_words

KeysValues = tuple[Float[Tensor, "b heads _ head_dim"], Float[Tensor, "b heads _ head_dim"]]


class KeptWords:
    """What the rows of a pass hear, and what each layer made of it.

    Args:
        texts: Encoded texts, one a row.
    """

    def __init__(self, texts: Sequence[Float[Tensor, "_ d"]]) -> None:
        self.stacked: Words = stack_words(texts)
        self.keys_values: dict[int, KeysValues] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of all keys and values so far."""
        return sum(part.nbytes for pair in self.keys_values.values() for part in pair)


@contextmanager
def fast_attention(
    transformer: PixArtTransformer2DModel, kept: dict[int, KeysValues] | None
) -> Iterator[None]:
    """Let a transformer attend as is fastest until the block ends; then its processors are back.

    A layer that does more than attend keeps its processor.

    Args:
        transformer: A PixArt transformer.
        kept: Keys and values by layer of what the rows of the pass hear, in their order; filled by
            the first pass and read by all others. None computes them anew.

    Yields:
        Nothing.
    """
    layers: list[tuple[Attention, object]] = []
    for number, block in enumerate(transformer.transformer_blocks):
        for layer, words in ((block.attn1, None), (block.attn2, kept)):
            if is_plain(layer):
                layers.append((layer, layer.processor))
                layer.set_processor(FastProcessor(number, words))
    try:
        yield
    finally:
        for layer, processor in layers:
            layer.set_processor(processor)


class FastProcessor:
    """What diffusers' own processor computes for a layer that does nothing but attend.

    Args:
        layer: The layer's number, under which its keys and values are kept.
        kept: Keys and values by layer; None keeps none.
    """

    def __init__(self, layer: int, kept: dict[int, KeysValues] | None) -> None:
        self._layer = layer
        self._kept = kept

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "b n d"],
        encoder_hidden_states: Float[Tensor, "b l k"] | None = None,
        attention_mask: Float[Tensor, "b 1 l"] | None = None,
        **_: object,
    ) -> Float[Tensor, "b n d"]:
        """Attend.

        Args:
            attn: The layer.
            hidden_states: Tokens of the pictures.
            encoder_hidden_states: What they hear; None is themselves.
            attention_mask: Added to the scores.

        Returns:
            What the tokens heard.
        """
        key, value = self._keys_values(attn, hidden_states, encoder_hidden_states)
        mask = None if attention_mask is None else attention_mask[:, None]
        heard = attend(split_heads(attn.to_q(hidden_states), attn.heads), key, value, mask)
        return attn.to_out[1](attn.to_out[0](heard.transpose(1, 2).flatten(2)))

    def _keys_values(
        self,
        attn: Attention,
        tokens: Float[Tensor, "b n c"],
        words: Float[Tensor, "b l k"] | None,
    ) -> KeysValues:
        if self._kept is None:
            return keys_values(attn, tokens if words is None else words)
        if self._layer not in self._kept:
            assert words is not None  # only layers that hear words are told to keep them
            self._kept[self._layer] = keys_values(attn, words)
        return self._kept[self._layer]
