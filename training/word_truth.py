"""What the nouns of captions stand for: the colour and the place that a drawn world knows."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from scenes.layout import NUM_COLOR_CLASSES, NUM_NOUN_CLASSES
from scenes.vocabulary import NOUNS

PLACE_WEIGHT = 4.0
"""Places are of the order of a tenth, errors of colours of the order of one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NounTruth:
    """What is true of every token of captions.

    Attributes:
        is_noun: Whether it names something that shows in the picture.
        color: Its colour class, as in `scenes.layout`; -1 where things of that name differ.
        place: The middle of all that it names, across and down, -1..1.
    """

    is_noun: Bool[Tensor, "b t"]
    color: Int[Tensor, "b t"]
    place: Float[Tensor, "b t 2"]


class NounTable:
    """Knows which tokens are nouns.

    Args:
        tokenizer: One token a word.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        classes = torch.zeros(len(tokenizer), dtype=torch.long)
        for place, (name, noun) in enumerate(NOUNS.items()):
            for word in {name, noun.plural}:
                classes[tokenizer.convert_tokens_to_ids(word)] = 1 + place
        self._classes = classes

    def look(self, tokens: Int[Tensor, "b t"], layouts: Int[Tensor, "b h w 2"]) -> NounTruth:
        """Look up what captions speak of in the layouts of their pictures.

        Args:
            tokens: Captions.
            layouts: Noun and colour classes of each cell.
        """
        nouns = self._classes.to(tokens.device)[tokens]
        shows = F.one_hot(layouts[..., 0].flatten(1), NUM_NOUN_CLASSES).float()
        colors = F.one_hot(layouts[..., 1].flatten(1), NUM_COLOR_CLASSES).float()
        cells = shows.sum(dim=1)
        seen = torch.einsum("bcn,bck->bnk", shows, colors)
        # cells where another thing stands in front may be counted for neither: the most common
        color = torch.where(seen.amax(-1) > 0.5 * cells, seen.argmax(-1), -1)
        place = torch.einsum("bcn,cd->bnd", shows, _middles(*layouts.shape[1:3]).to(tokens.device))
        place = place / cells.clamp(min=1)[..., None]
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        return NounTruth(
            is_noun=(nouns > 0) & (cells[rows, nouns] > 0),
            color=color[rows, nouns],
            place=place[rows, nouns],
        )


def new_word_head(width: int) -> nn.Module:
    """Return an untrained head that tells colour and place from a word's vector.

    Args:
        width: The text encoder's.
    """
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, NUM_COLOR_CLASSES + 2))


def word_error(told: Float[Tensor, "b t both"], truth: NounTruth) -> tuple[Tensor, Tensor, Tensor]:
    """Return how wrong a word head is.

    Args:
        told: What `new_word_head` says of every word.
        truth: What is so.

    Returns:
        The error to descend, the share of colours that are told right, and the mean distance of
        the places that are told, in halves of a picture.
    """
    colors, places = told.split([NUM_COLOR_CLASSES, 2], dim=-1)
    nouns, colored = truth.is_noun, truth.is_noun & (truth.color >= 0)
    count, num_colored = nouns.sum().clamp(min=1), colored.sum().clamp(min=1)
    squared = (places[nouns] - truth.place[nouns]).square().sum(-1)
    error = F.cross_entropy(colors[colored], truth.color[colored], reduction="sum") / num_colored
    right = (colors.detach()[colored].argmax(-1) == truth.color[colored]).float().sum()
    distance = squared.detach().sqrt().sum() / count
    return error + PLACE_WEIGHT * squared.sum() / count, right / num_colored, distance


def _middles(height: int, width: int) -> Float[Tensor, "cells 2"]:
    down = (torch.arange(height) + 0.5) / height * 2 - 1
    across = (torch.arange(width) + 0.5) / width * 2 - 1
    grid = torch.meshgrid(across, down, indexing="xy")
    return torch.stack([axis.flatten() for axis in grid], dim=-1)
