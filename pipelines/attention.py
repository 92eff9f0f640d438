"""Regional cross-attention for PixArt transformers: every place hears its own words."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor

from core.errors import InputError, UnsupportedError
from pipelines.attend import keys_values, split_heads
from pipelines.depth import LayerRule, Level, check_depth
from pipelines.regional_forms import Form, Mixer, MixerMaker, make_mixer
from quant.store import packed_layers


@contextmanager
def regional_attention(
    transformer: PixArtTransformer2DModel, rows: Sequence["RegionalRow | None"]
) -> Iterator[None]:
    """Let a transformer hear regions until the block ends; then its stock processors are back.

    The time step, the size and all else that is not cross-attention are untouched. Within the
    block every forward takes as many rows as are given here; rows may be of different requests
    at different steps. Without any regional row nothing is touched at all.

    Args:
        transformer: A PixArt transformer, alpha or Sigma; the one the rows were made for.
        rows: What each row of a forward hears; None where it hears what the call hands in.

    Yields:
        Nothing.
    """
    blocks = list(transformer.transformer_blocks) if any(rows) else []
    stock = [block.attn2.processor for block in blocks]
    try:
        for layer, (block, processor) in enumerate(zip(blocks, stock, strict=True)):
            block.attn2.set_processor(RegionalProcessor(processor, layer, rows))
        yield
    finally:
        for block, processor in zip(blocks, stock, strict=True):
            block.attn2.set_processor(processor)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowTexts:
    """What one row of a forward hears, and where.

    Attributes:
        texts: For each level the encoded texts, unpadded, the base prompt first and then the
            regions.
        weights: How much each token hears each text, as `regions.token_weights` returns it.
    """

    texts: dict[Level, list[Float[Tensor, "_ d"]]]
    weights: Float[Tensor, "texts tokens"]


class RegionalRow:
    """One row's words, ready for every layer and every step.

    Made once a request. Keys and values are computed when a layer first asks, and kept: they do
    not depend on the step.

    Args:
        transformer: The model that will hear them.
        asked: The words, and where each is heard.
        depth: One rule per layer.
        form: How the attention is computed; every form gives the same.
        keep_keys: Whether keys and values are kept between steps.

    Attributes:
        num_tokens: Image tokens that the weights are for.
        form: As above.
        layers: For each layer the encoded texts that it hears, and how much each token hears each.

    Raises:
        InputError: If a level has more or fewer texts than there are weights. A depth map of the
            wrong length is raised as `check_depth` says.
        UnsupportedError: If the model's cross-attention is of another kind than PixArt's.
    """

    def __init__(
        self,
        transformer: PixArtTransformer2DModel,
        asked: RowTexts,
        depth: Sequence[LayerRule],
        *,
        form: Form | MixerMaker = "auto",
        keep_keys: bool = True,
    ) -> None:
        blocks = transformer.transformer_blocks
        check_depth(depth, len(blocks))
        if not all(is_plain(block.attn2) for block in blocks):
            raise UnsupportedError(
                f"{type(transformer).__name__} normalises queries, keys or words in its "
                "cross-attention: regions work on PixArt alpha and Sigma."
            )
        for level, texts in asked.texts.items():
            if len(texts) != len(asked.weights):
                raise InputError(
                    f"Level {level} has {len(texts)} texts for {len(asked.weights)} weights.",
                    param="regions",
                )
        self.num_tokens = asked.weights.shape[1]
        self.form = form
        self._keep_keys = keep_keys and words_stand_still(transformer)
        self._transformer = transformer
        weights = asked.weights.to(transformer.device)
        known: dict[LayerRule, Heard] = {}
        for rule in depth:
            if rule not in known:
                known[rule] = _merged(asked.texts[rule.level], _scoped(weights, rule))
        self.layers = [known[rule] for rule in depth]
        self._projected: dict[int, Float[Tensor, "1 _ d"]] = {}
        self._mixers: dict[int, Mixer] = {}

    def mix(
        self, layer: int, attn: Attention, query: Float[Tensor, "1 heads n head_dim"]
    ) -> Float[Tensor, "1 heads n head_dim"]:
        """Let this row's tokens hear its words.

        Args:
            layer: Which layer, from 0.
            attn: That layer's cross-attention.
            query: The tokens.

        Returns:
            What each token heard.
        """
        mixer = self._mixers.get(layer)
        if mixer is None:
            texts, weights = self.layers[layer]
            known_words = [keys_values(attn, self._project(text)) for text in texts]
            mixer = make_mixer(known_words, weights, self.form)
            if self._keep_keys:
                self._mixers[layer] = mixer
        return mixer(query)

    def _project(self, text: Float[Tensor, "_ d"]) -> Float[Tensor, "1 _ k"]:
        if id(text) not in self._projected or not self._keep_keys:
            project = self._transformer.caption_projection or torch.nn.Identity()
            self._projected[id(text)] = project(text.to(self._transformer.dtype)[None])
        return self._projected[id(text)]


Heard = tuple[list[Float[Tensor, "_ d"]], Float[Tensor, "texts n"]]


class RegionalProcessor:
    """Takes the place of one layer's attention processor.

    Args:
        stock: The processor it stands in for, which still serves rows without regions.
        layer: Which layer, from 0.
        rows: What each row hears.
    """

    def __init__(
        self, stock: Callable[..., Tensor], layer: int, rows: Sequence[RegionalRow | None]
    ) -> None:
        self._stock = stock
        self._layer = layer
        self._rows = rows
        self._regional = [place for place, row in enumerate(rows) if row is not None]
        self._plain = [place for place, row in enumerate(rows) if row is None]

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "b n d"],
        encoder_hidden_states: Float[Tensor, "b l d"],
        attention_mask: Float[Tensor, "b 1 l"] | None = None,
        **kwargs: object,
    ) -> Float[Tensor, "b n d"]:
        """Attend, each row to its own words.

        Args:
            attn: The layer.
            hidden_states: Tokens of the pictures.
            encoder_hidden_states: Words of rows without regions.
            attention_mask: Which of these words are padding.
            **kwargs: Handed to the stock processor.

        Returns:
            What the tokens heard.
        """
        self._check(hidden_states)
        tokens = hidden_states[self._regional] if self._plain else hidden_states
        query = split_heads(attn.to_q(tokens), attn.heads)
        mixed = [
            row.mix(self._layer, attn, query[at : at + 1])
            for at, row in enumerate(filter(None, self._rows))
        ]
        heard = attn.to_out[1](attn.to_out[0](torch.cat(mixed).transpose(1, 2).flatten(2)))
        if not self._plain:
            return heard
        mask = None if attention_mask is None else attention_mask[self._plain]
        words = encoder_hidden_states[self._plain]
        outputs = heard.new_empty(len(self._rows), *heard.shape[1:])
        outputs[self._plain] = self._stock(attn, hidden_states[self._plain], words, mask, **kwargs)
        outputs[self._regional] = heard
        return outputs

    def _check(self, hidden_states: Float[Tensor, "b n d"]) -> None:
        if len(hidden_states) != len(self._rows):
            raise InputError(
                f"The forward has {len(hidden_states)} rows, regions were given for "
                f"{len(self._rows)}.",
                param="regions",
            )
        for row in filter(None, self._rows):
            if row.num_tokens != hidden_states.shape[1]:
                raise InputError(
                    f"The forward has {hidden_states.shape[1]} tokens, the weights "
                    f"{row.num_tokens}: draw the regions for the size of the picture.",
                    param="regions",
                )


def _merged(
    texts: Sequence[Float[Tensor, "_ d"]], weights: Float[Tensor, "texts n"]
) -> tuple[list[Float[Tensor, "_ d"]], Float[Tensor, "heard n"]]:
    """Ask for a text once, however many regions hear it, and not at all if none does.

    Equal texts are one tensor, for the encoder remembers them.
    """
    owners: dict[int, list[int]] = {}
    for place, text in enumerate(texts):
        if bool(weights[place].any()):
            owners.setdefault(id(text), []).append(place)
    merged = torch.stack([weights[places].sum(0) for places in owners.values()])
    return [texts[places[0]] for places in owners.values()], merged


def _scoped(weights: Float[Tensor, "texts n"], rule: LayerRule) -> Float[Tensor, "texts n"]:
    base = torch.zeros_like(weights)
    base[0] = 1
    if rule.scope == "global":
        return base
    return weights if rule.scope == "regional" else (weights + base) / 2


def is_plain(attn: Attention) -> bool:
    """Return whether a layer does nothing but attend.

    Args:
        attn: A cross-attention.
    """
    norms = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k")
    untouched = all(getattr(attn, name, None) is None for name in norms)
    return untouched and not attn.residual_connection and attn.rescale_output_factor == 1


def words_stand_still(transformer: PixArtTransformer2DModel) -> bool:
    """Return whether keys and values of words are the same at every timestep.

    They are, but for low-bit layers whose input ranges were stored for each timestep.

    Args:
        transformer: A PixArt transformer.
    """
    return all(
        layer.form.num_ranges <= 1
        for name, layer in packed_layers(transformer).items()
        if hears_words(name)
    )


def hears_words(layer: str) -> bool:
    """Return whether a layer's input are words alone.

    Args:
        layer: The layer's path in the transformer.
    """
    return layer.startswith("caption_projection.") or layer.endswith(("attn2.to_k", "attn2.to_v"))
