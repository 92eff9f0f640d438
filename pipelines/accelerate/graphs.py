"""The networks as graphs of plain operations, for one row each, ready to be traced.

Tracing follows one call and writes down what it computed. So everything that differs between rows
is an input here: the words, which of them are padding, and how loudly each place hears each text.
What layers make of words is the same at every step, so a network of its own computes it, once a
picture.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import chain
from typing import TypeAlias, no_type_check

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, PixArtTransformer2DModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import T5EncoderModel

from core.errors import UnsupportedError
from pipelines.accelerate.packed_graphs import Clock
from pipelines.attention import RegionalRow, hears_words, words_stand_still
from pipelines.conditioning import stack_words
from quant.constants import IntegerWeights
from quant.layers import PackedLayer
from quant.store import packed_layers

Exchange: TypeAlias = Callable[[PackedLayer, Clock], tuple[nn.Module, IntegerWeights | None]]
"""Makes another module of a packed layer; codes are what an engine is to be handed as constants."""

_PADDING = -10_000.0
"""What diffusers adds to the score of a word that is padding."""


class RowWords(nn.Module):
    """What a transformer's layers make of any number of texts, whatever the step.

    Args:
        network: Taken as it is, and copied but for its weights.
        exchange: As `RowTransformer` takes it.

    Raises:
        UnsupportedError: If what layers make of words changes with the timestep.
    """

    def __init__(self, network: PixArtTransformer2DModel, *, exchange: Exchange) -> None:
        super().__init__()
        if not words_stand_still(network):
            raise UnsupportedError("Its layers hear words otherwise at every timestep.")
        self.network = _shared_copy(network)
        self.codes = _with_plain_layers(self.network, Clock(), exchange, takes=hears_words)

    def forward(self, texts: Float[Tensor, "t l k"]) -> Float[Tensor, "1 pairs t l d"]:
        """Hear words.

        Args:
            texts: Encoded texts, padded to one length.

        Returns:
            For each layer its keys, then its values.
        """
        return words_of_layers(self.network, texts)


def words_of_layers(
    network: PixArtTransformer2DModel, texts: Float[Tensor, "t l k"]
) -> Float[Tensor, "1 pairs t l d"]:
    """Return for each layer its keys of texts, then its values.

    Args:
        network: The transformer.
        texts: Encoded texts, padded to one length.
    """
    project = network.caption_projection
    words = texts if project is None else project(texts)
    layers = [block.attn2 for block in network.transformer_blocks]
    return torch.stack([part(words) for attn in layers for part in (attn.to_k, attn.to_v)])[None]


class RowTransformer(nn.Module):
    """A transformer that hears any number of texts in one row, with or without regions.

    Args:
        network: Taken as it is, and copied but for its weights.
        latent_factor: Pixels along an edge for one latent cell.
        exchange: Makes of each packed layer what is traced or compiled in its place.
    """

    def __init__(
        self,
        network: PixArtTransformer2DModel,
        latent_factor: int,
        *,
        exchange: Exchange,
    ) -> None:
        super().__init__()
        self.network = _shared_copy(network)
        self._factor = latent_factor
        self._clock = Clock()
        self.codes = _with_plain_layers(
            self.network,
            self._clock,
            exchange,
            takes=lambda name: not hears_words(name),
        )
        self.network.caption_projection = None  # `RowWords` has heard them
        self._mixing = [_Mixing() for _ in self.network.transformer_blocks]
        for block, processor in zip(self.network.transformer_blocks, self._mixing, strict=True):
            block.attn2.set_processor(processor)

    def forward(
        self,
        latent: Float[Tensor, "1 c h w"],
        timestep: Float[Tensor, " 1"],
        words: Float[Tensor, "1 pairs t l d"],
        mask: Float[Tensor, "t l"],
        loudness: Float[Tensor, "layers t n"] | None = None,
    ) -> Float[Tensor, "1 o h w"]:
        """Run one row.

        Args:
            latent: Its noisy latent picture.
            timestep: How noisy it is, 0..999.
            words: What `RowWords` made of the texts it hears.
            mask: 1 where a word stands, 0 where padding does.
            loudness: How much each token hears each text in each layer, 1 in all; None without
                regions: one text is heard by every token.
        """
        padding = ((1 - mask) * _PADDING)[:, None, None, :]
        for layer, processor in enumerate(self._mixing):
            processor.key, processor.value = words[0, 2 * layer], words[0, 2 * layer + 1]
            processor.padding = padding
            processor.loudness = None if loudness is None else loudness[layer]
        self._clock.start(timestep)
        return self.network(
            latent,
            encoder_hidden_states=None,
            timestep=timestep,
            added_cond_kwargs=self._micro_conditions(latent),
            return_dict=False,
        )[0]

    def _micro_conditions(self, latent: Float[Tensor, "1 c h w"]) -> dict[str, Tensor | None]:
        if not self.network.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (int(edge) * self._factor for edge in latent.shape[-2:])
        return {
            "resolution": latent.new_tensor([[float(height), float(width)]]),
            "aspect_ratio": latent.new_tensor([[height / width]]),
        }


Decoder: TypeAlias = AutoencoderKL | AutoencoderDC | AutoencoderTiny


class RowDecoder(nn.Module):
    """A VAE's decoder.

    Args:
        vae: The VAE.
    """

    def __init__(self, vae: Decoder) -> None:
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


class _Mixing:
    """Takes the place of one layer's attention processor: tokens hear all texts, each so loudly.

    It knows nothing of its layer but what it is told before a pass, so that one compiled block
    serves them all.
    """

    key: Float[Tensor, "t l d"]
    value: Float[Tensor, "t l d"]
    padding: Float[Tensor, "t 1 1 l"]
    loudness: Float[Tensor, "t n"] | None

    @no_type_check  # torch's compiler does not see through what checks shapes in tests
    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "1 n d"],
        *_: object,
        **__: object,
    ) -> Float[Tensor, "1 n d"]:
        query, key, value = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(hidden_states), self.key, self.value)
        )
        if self.loudness is not None:
            query = query.expand(key.shape[0], -1, -1, -1)
        heard = F.scaled_dot_product_attention(query, key, value, attn_mask=self.padding)
        heard = heard.transpose(1, 2).flatten(2)
        if self.loudness is not None:
            heard = (heard * self.loudness[:, :, None]).sum(0, keepdim=True)
        return attn.to_out[0](heard)


def regional_words(
    regions: RegionalRow, *, num_layers: int, num_tokens: int
) -> tuple[Float[Tensor, "t l d"], Float[Tensor, "t l"], Float[Tensor, "layers t n"]]:
    """Return what the regions of one row hear as `RowTransformer` takes it.

    Args:
        regions: What they hear.
        num_layers: Cross-attention layers.
        num_tokens: Image tokens.

    Returns:
        Texts, mask and loudness; a layer hears a text that is another layer's at loudness 0. There
        are two at least, for compilers make a form of its own of one: a text that all regions
        share stands there twice, once at loudness 0.
    """
    heard = {id(text): text for texts, _ in regions.layers for text in texts}
    places: Mapping[int, int] = {key: place for place, key in enumerate(heard)}
    texts = list(heard.values())
    stacked = stack_words(texts if len(texts) > 1 else texts * 2)
    loudness = torch.zeros(num_layers, len(stacked.mask), num_tokens)
    for layer, (texts, weights) in enumerate(regions.layers):
        for text, weight in zip(texts, weights, strict=True):
            loudness[layer, places[id(text)]] = weight
    return stacked.vectors, stacked.mask.float(), loudness


def _with_plain_layers(
    network: PixArtTransformer2DModel,
    clock: Clock,
    exchange: Exchange,
    *,
    takes: Callable[[str], bool],
) -> dict[str, IntegerWeights]:
    """Exchange packed layers for plain operations, and return the codes of those that have some."""
    found: dict[str, IntegerWeights] = {}
    for name, layer in packed_layers(network).items():
        if not takes(name):  # nobody calls it; tracing would unpack it to look at its weight
            network.set_submodule(name, nn.Identity())
            continue
        plain, codes = exchange(layer, clock)
        network.set_submodule(name, plain)
        if codes is not None:
            found[f"network.{name}"] = codes
    return found


def _shared_copy(network: PixArtTransformer2DModel) -> PixArtTransformer2DModel:
    """Copy a network's structure, so that its layers can be exchanged; weights stay shared."""
    weights = chain(network.parameters(), network.buffers())
    copied = deepcopy(network, {id(weight): weight for weight in weights})
    for module in copied.modules():
        module.__dict__.pop("forward", None)  # what kept rows apart; there is one row
    copied._forward_pre_hooks.clear()  # noqa: SLF001 - it listened for timesteps, as the clock does
    return copied
