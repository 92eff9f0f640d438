"""Regional cross-attention for PixArt transformers: every place hears its own words."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from core.errors import InputError, UnsupportedError
from pipelines.depth import LayerRule, Level, check_depth

Form = Literal["auto", "gathered", "folded", "packed", "looped"]
KeysValues = tuple[Float[Tensor, "1 heads _ head_dim"], Float[Tensor, "1 heads _ head_dim"]]


@contextmanager
def regional_attention(
    transformer: PixArtTransformer2DModel,
    rows: Sequence["RowTexts | None"],
    *,
    depth: Sequence[LayerRule],
    window: tuple[float, float] = (0.0, 1.0),
    form: Form = "auto",
    keep_keys: bool = True,
) -> Iterator["StepWindow"]:
    """Let a transformer hear regions until the block ends; then its stock processors are back.

    The time step, the size and all else that is not cross-attention are untouched. Within the
    block every forward takes as many rows as are given here.

    Args:
        transformer: A PixArt transformer, alpha or Sigma.
        rows: What each row of a forward hears; None where it hears what the call hands in, as
            the unconditional half of guidance does.
        depth: One rule per layer.
        window: Regions act from the first of these shares of the steps until before the second.
        form: How the attention is computed; every form gives the same. "auto" takes "gathered"
            where texts are heard by half of the tokens or fewer on average, else "folded".
        keep_keys: Compute the keys and values of a text once per layer, not once per step.

    Yields:
        The window: tell it which step it is.

    Raises:
        InputError: If the window is inverted or off 0..1. A depth map of the wrong length is
            raised as `check_depth` says.
        UnsupportedError: If the model's cross-attention is of another kind than PixArt's.
    """
    if not 0 <= window[0] <= window[1] <= 1:
        raise InputError(
            f"region_window is {window}: start and end as shares of the steps, "
            "0 <= start <= end <= 1.",
            param="region_window",
        )
    blocks = list(transformer.transformer_blocks)
    check_depth(depth, len(blocks))
    for block in blocks:
        if not _is_plain(block.attn2):
            raise UnsupportedError(
                f"{type(transformer).__name__} normalises queries, keys or words in its "
                "cross-attention: regions work on PixArt alpha and Sigma."
            )
    control = StepWindow(window)
    heard = [row.projected(transformer) if row else None for row in rows]
    stock = [block.attn2.processor for block in blocks]
    try:
        for block, rule, processor in zip(blocks, depth, stock, strict=True):
            block.attn2.set_processor(
                RegionalProcessor(processor, heard, rule, control, form, keep_keys=keep_keys)
            )
        yield control
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

    def projected(self, transformer: PixArtTransformer2DModel) -> "RowTexts":
        """Return the same with texts as the layers read them.

        Args:
            transformer: The model that reads them.

        Raises:
            InputError: If a level has more or fewer texts than there are weights.
        """
        for level, texts in self.texts.items():
            if len(texts) != len(self.weights):
                raise InputError(
                    f"Level {level} has {len(texts)} texts for {len(self.weights)} weights.",
                    param="regions",
                )
        project = transformer.caption_projection or torch.nn.Identity()
        projected: dict[Level, list[Tensor]] = {
            level: [project(text.to(transformer.dtype)[None])[0] for text in texts]
            for level, texts in self.texts.items()
        }
        return RowTexts(texts=projected, weights=self.weights.to(transformer.device))


class StepWindow:
    """Knows whether regions act now.

    Args:
        window: Shares of the steps, from and until before.
    """

    def __init__(self, window: tuple[float, float]) -> None:
        self._window = window
        self.is_open = window[0] == 0 < window[1]

    def begin_step(self, step: int, num_steps: int) -> None:
        """Say which step comes next.

        Args:
            step: Steps done, from 0.
            num_steps: Steps in all.
        """
        self.is_open = self._window[0] <= step / num_steps < self._window[1]


class RegionalProcessor:
    """Takes the place of one layer's attention processor.

    Args:
        stock: The processor it stands in for, which still serves rows without regions.
        rows: What each row hears, projected.
        rule: Level and scope of this layer.
        control: Whether regions act now.
        form: How the attention is computed.
        keep_keys: Whether keys and values are kept between calls.
    """

    def __init__(
        self,
        stock: Callable[..., Tensor],
        rows: Sequence[RowTexts | None],
        rule: LayerRule,
        control: StepWindow,
        form: Form,
        *,
        keep_keys: bool,
    ) -> None:
        self._stock = stock
        self._rows = rows
        self._rule = rule
        self._control = control
        self._form: Form = form
        self._keep_keys = keep_keys
        self._known: dict[tuple[int, int], KeysValues] = {}
        self._weights = [_scoped(row.weights, rule) if row else None for row in rows]

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "b n d"],
        encoder_hidden_states: Float[Tensor, "b l d"],
        attention_mask: Float[Tensor, "b 1 l"] | None = None,
        **kwargs: object,
    ) -> Float[Tensor, "b n d"]:
        """Attend, row by row, so that a row's result depends on no other row.

        Args:
            attn: The layer.
            hidden_states: Tokens of the picture.
            encoder_hidden_states: Words of rows without regions.
            attention_mask: Which of these words are padding.
            **kwargs: Handed to the stock processor.

        Returns:
            What the tokens heard.

        Raises:
            InputError: If the forward has more or fewer rows, or tokens, than were announced.
        """
        if not self._control.is_open or not any(self._rows):
            return self._stock(attn, hidden_states, encoder_hidden_states, attention_mask, **kwargs)
        if len(hidden_states) != len(self._rows):
            raise InputError(
                f"The forward has {len(hidden_states)} rows, regions were given for "
                f"{len(self._rows)}.",
                param="regions",
            )
        outputs = []
        for place, weights in enumerate(self._weights):
            here = slice(place, place + 1)
            if weights is None:
                mask = None if attention_mask is None else attention_mask[here]
                words = encoder_hidden_states[here]
                outputs.append(self._stock(attn, hidden_states[here], words, mask, **kwargs))
                continue
            if weights.shape[1] != hidden_states.shape[1]:
                raise InputError(
                    f"The forward has {hidden_states.shape[1]} tokens, the weights "
                    f"{weights.shape[1]}: draw the regions for the size of the picture.",
                    param="regions",
                )
            heard = [text for text in range(len(weights)) if bool(weights[text].any())]
            keys_values = [self._keys_values(attn, place, text) for text in heard]
            query = _heads(attn.to_q(hidden_states[here]), attn.heads)
            mixed = attend(query, keys_values, weights[heard], self._form)
            outputs.append(attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2))))
        return torch.cat(outputs)

    def _keys_values(self, attn: Attention, place: int, text: int) -> KeysValues:
        known = self._known.get((place, text))
        if known is not None:
            return known
        row = self._rows[place]
        assert row is not None  # only asked of rows with weights
        words = row.texts[self._rule.level][text][None]
        made = (_heads(attn.to_k(words), attn.heads), _heads(attn.to_v(words), attn.heads))
        if self._keep_keys:
            self._known[place, text] = made
        return made


def attend(
    query: Float[Tensor, "1 heads n head_dim"],
    keys_values: Sequence[KeysValues],
    weights: Float[Tensor, "texts n"],
    form: Form,
) -> Float[Tensor, "1 heads n head_dim"]:
    """Let each token hear several texts and mix what it heard by its weights.

    Args:
        query: Tokens of one picture.
        keys_values: Words of each text.
        weights: How much each token hears each text; 1 in all on each token.
        form: How it is computed: "looped" asks every token of every text, one text at a time;
            "folded" does so in one call; "gathered" asks only tokens that hear the text; "packed"
            is one call over all words with a mask, for weights of 0 and 1 alone.

    Returns:
        What each token heard.
        Asking for "packed" with other weights is refused as an InputError.
    """
    if form == "auto":
        form = "gathered" if 2 * int((weights > 0).sum()) <= weights.numel() else "folded"
    if form == "packed":
        return _packed(query, keys_values, weights)
    if form == "folded":
        return _folded(query, keys_values, weights)
    mixed = torch.zeros_like(query, dtype=torch.float32)
    for (key, value), weight in zip(keys_values, weights, strict=True):
        places = weight.nonzero()[:, 0] if form == "gathered" else slice(None)
        heard = F.scaled_dot_product_attention(query[:, :, places], key, value)
        mixed[:, :, places] += weight[places, None] * heard.float()
    return mixed.to(query.dtype)


def _folded(
    query: Float[Tensor, "1 heads n head_dim"],
    keys_values: Sequence[KeysValues],
    weights: Float[Tensor, "texts n"],
) -> Float[Tensor, "1 heads n head_dim"]:
    lengths = [key.shape[2] for key, _ in keys_values]
    longest = max(lengths)
    key, value = (
        torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[2])) for x in parts])
        for parts in zip(*keys_values, strict=True)
    )
    mask = None
    if min(lengths) < longest:
        ends = torch.tensor(lengths, device=query.device)[:, None]
        mask = (torch.arange(longest, device=query.device) < ends)[:, None, None]
    heard = F.scaled_dot_product_attention(
        query.expand(len(lengths), -1, -1, -1), key, value, attn_mask=mask
    )
    return (weights[:, None, :, None] * heard.float()).sum(0, keepdim=True).to(query.dtype)


def _packed(
    query: Float[Tensor, "1 heads n head_dim"],
    keys_values: Sequence[KeysValues],
    weights: Float[Tensor, "texts n"],
) -> Float[Tensor, "1 heads n head_dim"]:
    if not bool(((weights == 0) | (weights == 1)).all()):
        raise InputError(
            'Form "packed" is for hard regions: use "folded" or "gathered" for soft ones.',
            param="form",
        )
    key, value = (torch.cat(parts, dim=2) for parts in zip(*keys_values, strict=True))
    lengths = torch.tensor([k.shape[2] for k, _ in keys_values], device=query.device)
    mask = (weights > 0).repeat_interleave(lengths, dim=0).T
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _scoped(weights: Float[Tensor, "texts n"], rule: LayerRule) -> Float[Tensor, "texts n"]:
    base = torch.zeros_like(weights)
    base[0] = 1
    if rule.scope == "global":
        return base
    return weights if rule.scope == "regional" else (weights + base) / 2


def _heads(x: Float[Tensor, "b n d"], num_heads: int) -> Float[Tensor, "b heads n head_dim"]:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _is_plain(attn: Attention) -> bool:
    norms = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k")
    untouched = all(getattr(attn, name, None) is None for name in norms)
    return untouched and not attn.residual_connection and attn.rescale_output_factor == 1
