"""Four ways to let each token hear several texts; all give the same."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from core.errors import InputError
from pipelines.attend import attend

Form = Literal["auto", "gathered", "folded", "packed", "looped"]
KeysValues = tuple[Float[Tensor, "1 heads _ head_dim"], Float[Tensor, "1 heads _ head_dim"]]
MixerMaker = Callable[[Sequence[KeysValues], Float[Tensor, "texts n"]], "Mixer"]
Mixer = Callable[[Float[Tensor, "1 heads n head_dim"]], Float[Tensor, "1 heads n head_dim"]]


def make_mixer(
    keys_values: Sequence[KeysValues],
    weights: Float[Tensor, "texts n"],
    form: "Form | MixerMaker" = "auto",
) -> Mixer:
    """Prepare the attention of one picture's tokens to several texts.

    What does not depend on the tokens is computed here, once: a mixer is called at every step.

    Args:
        keys_values: Words of each text.
        weights: How much each token hears each text; 1 in all on each token.
        form: How it is computed. "looped" asks every token of every text, one text at a time;
            "folded" does so in one call; "gathered" asks only tokens that hear the text; "packed"
            is one call over all words with a mask, for weights of 0 and 1 alone. "auto" takes the
            cheapest as measured. A function makes something else of the weights; baselines do.

    Returns:
        A function from queries to what each token heard. Asking for "packed" with weights between
        0 and 1 is refused as an InputError.
    """
    if not isinstance(form, str):
        return form(keys_values, weights)
    if len(weights) == 1:
        return _plain(keys_values[0])
    makers = {"gathered": _gathered, "folded": _folded, "packed": _packed, "looped": _looped}
    return makers[cheapest_form(weights) if form == "auto" else form](keys_values, weights)


def cheapest_form(weights: Float[Tensor, "texts n"]) -> Form:
    """Return the form that is cheapest for these weights.

    Args:
        weights: How much each token hears each text.

    Source: `python -m benchmarks.bench_regional`.
    """
    if is_hard(weights):
        return "packed"
    return "gathered" if 2 * int((weights > 0).sum()) <= weights.numel() else "folded"


def is_hard(weights: Float[Tensor, "texts n"]) -> bool:
    """Return whether every token hears one text alone.

    Args:
        weights: How much each token hears each text.
    """
    return bool(((weights == 0) | (weights == 1)).all())


def _plain(keys_values: KeysValues) -> Mixer:
    key, value = keys_values
    return lambda query: attend(query, key, value)


def _looped(keys_values: Sequence[KeysValues], weights: Float[Tensor, "texts n"]) -> Mixer:
    def mix(query: Float[Tensor, "1 heads n head_dim"]) -> Float[Tensor, "1 heads n head_dim"]:
        mixed = torch.zeros_like(query, dtype=torch.float32)
        for (key, value), weight in zip(keys_values, weights, strict=True):
            heard = attend(query, key, value)
            mixed += weight[:, None] * heard.float()
        return mixed.to(query.dtype)

    return mix


def _gathered(keys_values: Sequence[KeysValues], weights: Float[Tensor, "texts n"]) -> Mixer:
    places = [weight.nonzero()[:, 0] for weight in weights]
    parts = list(zip(keys_values, places, strict=True))
    if is_hard(weights):
        back = torch.cat(places).argsort()

        def ask(query: Float[Tensor, "1 heads n head_dim"]) -> Float[Tensor, "1 heads n head_dim"]:
            heard = [attend(query[:, :, at], *kv) for kv, at in parts]
            return torch.cat(heard, dim=2)[:, :, back]

        return ask
    loudness = [weight[at, None] for weight, at in zip(weights, places, strict=True)]

    def mix(query: Float[Tensor, "1 heads n head_dim"]) -> Float[Tensor, "1 heads n head_dim"]:
        mixed = torch.zeros_like(query, dtype=torch.float32)
        for (kv, at), loud in zip(parts, loudness, strict=True):
            heard = attend(query[:, :, at], *kv)
            mixed.index_add_(2, at, loud * heard.float())
        return mixed.to(query.dtype)

    return mix


def _folded(keys_values: Sequence[KeysValues], weights: Float[Tensor, "texts n"]) -> Mixer:
    lengths = torch.tensor([key.shape[2] for key, _ in keys_values])
    longest = int(lengths.max())
    key, value = (
        torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[2])) for x in parts])
        for parts in zip(*keys_values, strict=True)
    )
    mask = None
    if int(lengths.min()) < longest:
        heard = (torch.arange(longest) < lengths[:, None])[:, None, None]
        mask = _as_bias(heard.to(weights.device), key)
    loudness = weights[:, None, :, None]

    def mix(query: Float[Tensor, "1 heads n head_dim"]) -> Float[Tensor, "1 heads n head_dim"]:
        folded = query.expand(len(lengths), -1, -1, -1)
        heard = attend(folded, key, value, mask)
        return (loudness * heard.float()).sum(0, keepdim=True).to(query.dtype)

    return mix


def _packed(keys_values: Sequence[KeysValues], weights: Float[Tensor, "texts n"]) -> Mixer:
    if not is_hard(weights):
        raise InputError(
            'Form "packed" is for hard regions: use "folded" or "gathered" for soft ones.',
            param="form",
        )
    key, value = (torch.cat(parts, dim=2) for parts in zip(*keys_values, strict=True))
    lengths = torch.tensor([k.shape[2] for k, _ in keys_values], device=weights.device)
    mask = _as_bias((weights > 0).repeat_interleave(lengths, dim=0).T, key)
    return lambda query: attend(query, key, value, mask)


def _as_bias(heard: Bool[Tensor, "*shape"], like: Tensor) -> Float[Tensor, "*shape"]:
    """Return what attention would make of a mask at every call."""
    return like.new_zeros(heard.shape).masked_fill(~heard, float("-inf"))
