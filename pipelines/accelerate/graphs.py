"""The three networks as graphs of plain operations, for one row each, ready to be traced.

Tracing follows one call and writes down what it computed. So everything that differs between rows
is an input here: the words, which of them are padding, and how loudly each place hears each text.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import chain

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, AutoencoderKL, PixArtTransformer2DModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import T5EncoderModel

from pipelines.attention import RegionalRow
from pipelines.conditioning import stack_words
from quant.constants import IntegerWeights, integer_weights
from quant.layers import PackedConv2d, PackedLayer, PackedLinear
from quant.precision import MAX_BITS
from quant.store import packed_layers

_PADDING = -10_000.0
"""What diffusers adds to the score of a word that is padding."""


class RowTransformer(nn.Module):
    """A transformer that hears any number of texts in one row, with or without regions.

    Args:
        network: Taken as it is, and copied but for its weights.
        latent_factor: Pixels along an edge for one latent cell.
        expand: Keep all codes of low-bit weights in eight bits.
    """

    def __init__(
        self, network: PixArtTransformer2DModel, latent_factor: int, *, expand: bool = False
    ) -> None:
        super().__init__()
        self.network = _shared_copy(network)
        self.codes: dict[str, IntegerWeights] = {}
        self._factor = latent_factor
        self._words: Tensor | None = None
        self._padding: Tensor | None = None
        self._loudness: Tensor | None = None
        self._clock = _Clock()
        for name, layer in packed_layers(self.network).items():
            self.network.set_submodule(name, self._plain_layer(name, layer, expand=expand))
        for number, block in enumerate(self.network.transformer_blocks):
            block.attn2.set_processor(_Mixing(self, number))

    def forward(
        self,
        latent: Float[Tensor, "1 c h w"],
        timestep: Float[Tensor, " 1"],
        texts: Float[Tensor, "t l d"],
        mask: Float[Tensor, "t l"],
        loudness: Float[Tensor, "layers t n"],
    ) -> Float[Tensor, "1 o h w"]:
        """Run one row.

        Args:
            latent: Its noisy latent picture.
            timestep: How noisy it is, 0..999.
            texts: The encoded texts it hears, padded to one length.
            mask: 1 where a word stands, 0 where padding does.
            loudness: How much each token hears each text in each layer; 1 in all.
        """
        project = self.network.caption_projection
        self._words = texts if project is None else project(texts)
        self._padding = ((1 - mask) * _PADDING)[:, None, None, :]
        self._loudness = loudness
        self._clock.timestep = timestep
        return self.network(
            latent,
            encoder_hidden_states=texts[:1],
            timestep=timestep,
            added_cond_kwargs=self._micro_conditions(latent),
            return_dict=False,
        )[0]

    def hear(
        self, layer: int, attn: Attention, tokens: Float[Tensor, "1 n d"]
    ) -> Float[Tensor, "1 n d"]:
        """Let the tokens of one layer hear all texts, each token each as loudly as it should.

        Args:
            layer: Which layer, from 0.
            attn: Its cross-attention.
            tokens: The picture.
        """
        assert self._words is not None
        assert self._loudness is not None
        query, key, value = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(tokens), attn.to_k(self._words), attn.to_v(self._words))
        )
        query = query.expand(key.shape[0], -1, -1, -1)
        heard = F.scaled_dot_product_attention(query, key, value, attn_mask=self._padding)
        mixed = (heard * self._loudness[layer][:, None, :, None]).sum(0, keepdim=True)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))

    def _plain_layer(self, name: str, layer: PackedLayer, *, expand: bool) -> nn.Module:
        if isinstance(layer, PackedConv2d):
            return _PlainConvolution(layer)
        assert isinstance(layer, PackedLinear)
        codes = integer_weights(layer, expand=expand)
        if codes is not None:
            self.codes[f"network.{name}"] = codes
        return PlainLinear(layer, codes, self._clock)

    def _micro_conditions(self, latent: Float[Tensor, "1 c h w"]) -> dict[str, Tensor | None]:
        if not self.network.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (int(edge) * self._factor for edge in latent.shape[-2:])
        return {
            "resolution": torch.tensor([[float(height), float(width)]]),
            "aspect_ratio": torch.tensor([[height / width]]),
        }


class RowDecoder(nn.Module):
    """A VAE's decoder.

    Args:
        vae: The VAE.
    """

    def __init__(self, vae: AutoencoderKL | AutoencoderDC) -> None:
        super().__init__()
        self.network = vae

    def forward(self, latent: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 3 x y"]:
        """Turn one latent picture into pixels.

        Args:
            latent: On the VAE's own scale.
        """
        return self.network.decode(latent, return_dict=False)[0]


class RowEncoder(nn.Module):
    """A text encoder that hears one unpadded text.

    Args:
        text_encoder: The text encoder.
    """

    def __init__(self, text_encoder: T5EncoderModel) -> None:
        super().__init__()
        self.network = text_encoder

    def forward(self, ids: Int[Tensor, "1 l"]) -> Float[Tensor, "1 l d"]:
        """Turn tokens into vectors.

        Args:
            ids: Token numbers.
        """
        return self.network(ids, attention_mask=torch.ones_like(ids))[0]


class PlainLinear(nn.Module):
    """What a packed linear layer computes, in operations that any engine knows.

    Inputs of eight bits with a range per token stay in float: the engine rounds them itself, or is
    more exact. All others are rounded here, to the very codes of the packed layer: a network that
    learned with clipped inputs must have them clipped.

    Args:
        layer: The packed layer.
        codes: Its weight in whole numbers; None takes the float weight.
        clock: Tells the timestep of the running row.
    """

    weight: Tensor

    def __init__(self, layer: PackedLinear, codes: IntegerWeights | None, clock: "_Clock") -> None:
        super().__init__()
        self._bits = layer.form.activation_bits
        self._rounds = layer.form.num_ranges > 0 or 0 < self._bits < MAX_BITS
        self._clock = clock
        self._table = layer.timesteps.table
        self._ranges = layer.ranges.float() if layer.form.num_ranges else None
        self.register_buffer("weight", _float_rows(layer) if codes is None else codes.weight)
        self._rest = None if codes is None else codes.rest
        self._shrink = (
            layer.smoothed(torch.ones(1, layer.in_features)) if layer.form.smoothed else None
        )
        self._branch = (layer.down.float(), layer.up.float()) if layer.form.rank else None
        self._bias = None if layer.bias is None else layer.bias.float()

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Multiply.

        Args:
            x: Inputs.
        """
        heard = x if self._shrink is None else x * self._shrink
        rounded = self._rounded(heard) if self._rounds else heard
        output = F.linear(rounded, self.weight)
        if self._rest is not None:
            output = output + rounded.sum(-1, keepdim=True) * self._rest
        if self._branch is not None:
            down, up = self._branch
            output = output + F.linear(F.linear(heard, down), up)
        return output if self._bias is None else output + self._bias

    def _rounded(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b i"]:
        highest = 2.0**self._bits - 1
        if self._ranges is None:
            low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
            scale = ((high - low) / highest).clamp(min=1e-30)
            zero = (-low / scale).round()
        else:
            scale, zero = self._clock.pick(self._ranges, self._table)
            zero = zero.round()
        return ((x / scale + zero).round().clamp(0, highest) - zero) * scale


class _Clock:
    """The timestep of the row that is traced, for layers deep inside."""

    timestep: Tensor | None = None

    def pick(
        self, ranges: Float[Tensor, "2 t"], table: Sequence[float]
    ) -> tuple[Float[Tensor, " 1"], Float[Tensor, " 1"]]:
        if ranges.shape[1] == 1:
            return ranges[0], ranges[1]
        assert self.timestep is not None
        # How many entries lie behind, the last of them in part; then the mix of its two neighbours.
        above, below = torch.tensor(table[:-1]), torch.tensor(table[1:])
        place = ((above - self.timestep) / (above - below)).clamp(0, 1).sum()
        shares = (1 - (torch.arange(len(table)) - place).abs()).clamp(min=0)
        return (ranges[0] * shares).sum()[None], (ranges[1] * shares).sum()[None]


class _PlainConvolution(nn.Module):
    def __init__(self, layer: PackedConv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight, requires_grad=False)
        self._bias = layer.bias
        self._packed = layer.multiply

    def forward(self, x: Tensor) -> Tensor:
        output = self._packed(x, self.weight)
        return output if self._bias is None else output + self._bias[:, None, None]


class _Mixing:
    """Takes the place of one layer's attention processor."""

    def __init__(self, row: RowTransformer, layer: int) -> None:
        self._row, self._layer = row, layer

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        return self._row.hear(self._layer, attn, hidden_states)


def row_words(
    words: Float[Tensor, "_ d"], regions: RegionalRow | None, *, num_layers: int, num_tokens: int
) -> tuple[Float[Tensor, "t l d"], Float[Tensor, "t l"], Float[Tensor, "layers t n"]]:
    """Return what one row hears as `RowTransformer` takes it.

    Args:
        words: Its words where it has no regions.
        regions: What its regions hear instead.
        num_layers: Cross-attention layers.
        num_tokens: Image tokens.

    Returns:
        Texts, mask and loudness; a layer hears a text that is another layer's at loudness 0.
    """
    if regions is None:
        stacked = stack_words([words])
        return stacked.vectors, stacked.mask.float(), torch.ones(num_layers, 1, num_tokens)
    heard = {id(text): text for texts, _ in regions.layers for text in texts}
    places: Mapping[int, int] = {key: place for place, key in enumerate(heard)}
    stacked = stack_words(list(heard.values()))
    loudness = torch.zeros(num_layers, len(heard), num_tokens)
    for layer, (texts, weights) in enumerate(regions.layers):
        for text, weight in zip(texts, weights, strict=True):
            loudness[layer, places[id(text)]] = weight
    return stacked.vectors, stacked.mask.float(), loudness


def _shared_copy(network: PixArtTransformer2DModel) -> PixArtTransformer2DModel:
    """Copy a network's structure, so that its layers can be exchanged; weights stay shared."""
    weights = chain(network.parameters(), network.buffers())
    copied = deepcopy(network, {id(weight): weight for weight in weights})
    for module in copied.modules():
        module.__dict__.pop("forward", None)  # what kept rows apart; there is one row
    copied._forward_pre_hooks.clear()  # noqa: SLF001 - it listened for timesteps, as the clock does
    return copied


def _float_rows(layer: PackedLinear) -> Float[Tensor, "o i"]:
    rows = layer.sorted_weight()
    return rows if layer.places is None else rows[layer.places.long()]
