"""A small detector of the emoji world, in latents: where centres lie, what, which colour, how big.

It has learned from drawn scenes alone and compares nothing with known looks: what
`evaluation.second_judge` asks, so that two judges of different make read the same picture.

Source:
    Zhou et al., Objects as Points, arXiv 1904.07850, sections 3 and 4. Differs: a small residual
    network over an autoencoder's latents; a colour word is answered at each centre.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill.features import ResidualBlock
from scenes.compose import Box, Scene
from scenes.readings import look_word
from scenes.vocabulary import COLORS, NOUNS
from training.networks import load_network, save_network

# Own looks that no one word names, then the colour words.
LOOK_WORDS: tuple[str | None, ...] = (None, *COLORS)
BOX_NUMBERS = 4
# Centres are rare among places: at first every place is thought empty.
FIRST_LOGIT = -4.0
# How far a centre's target reaches, as a share of the object's longer side.
CENTER_SPREAD = 0.12


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorShape:
    """What a detector is.

    Attributes:
        channels: Channels of a latent.
        width: Channels at the latent's own resolution; at half of it there are 5/3 as many.
        trained_on: Name of the encoder whose latents it knows.
    """

    channels: int
    width: int
    trained_on: str


class Seen(NamedTuple):
    """What a detector answers for every place of a latent.

    Attributes:
        nouns: Logits that an object of a kind has its centre here.
        looks: Logits over LOOK_WORDS of the object that has.
        boxes: Its centre from the middle of the place, right and down, and its width and height;
            all as shares of the picture's side.
    """

    nouns: Float[Tensor, "b n h w"]
    looks: Float[Tensor, "b k h w"]
    boxes: Float[Tensor, "b 4 h w"]


class Targets(NamedTuple):
    """What a detector should answer.

    Attributes:
        nouns: How near a centre of each kind is: 1 at it, falling off around.
        places: Row and cell (y, x) of each object's centre.
        kinds: Noun of each object, as its place in NOUNS.
        looks: Its look, as its place in LOOK_WORDS.
        boxes: As in `Seen`.
    """

    nouns: Float[Tensor, "b n h w"]
    places: Int[Tensor, "m 3"]
    kinds: Int[Tensor, " m"]
    looks: Int[Tensor, " m"]
    boxes: Float[Tensor, "m 4"]


class Detector(nn.Module):
    """Two resolutions of residual blocks, and one answer a place.

    Args:
        shape: Its size and what it knows.
    """

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        self.shape = shape
        width, deep = shape.width, shape.width * 5 // 3 // 8 * 8
        self.fine = nn.Sequential(
            nn.Conv2d(shape.channels, width, 3, padding=1),
            ResidualBlock(width),
            ResidualBlock(width),
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(width, deep, 3, stride=2, padding=1),
            *(ResidualBlock(deep) for _ in range(3)),
            nn.Conv2d(deep, width, 1),
            nn.Upsample(scale_factor=2),
        )
        self.joined = nn.Sequential(
            ResidualBlock(width), ResidualBlock(width), nn.GroupNorm(8, width), nn.SiLU()
        )
        self.head = nn.Conv2d(width, len(NOUNS) + len(LOOK_WORDS) + BOX_NUMBERS, 1)
        with torch.no_grad():
            self.head.bias[: len(NOUNS)].fill_(FIRST_LOGIT)  # type: ignore[index] # it has one

    def forward(self, latents: Float[Tensor, "b c h w"]) -> Seen:
        """Return what stands where.

        Args:
            latents: At unit spread.
        """
        fine = self.fine(latents)
        answers = self.head(self.joined(fine + self.coarse(fine)))
        return Seen(*answers.float().split([len(NOUNS), len(LOOK_WORDS), BOX_NUMBERS], dim=1))


def targets_of(scenes: Sequence[Scene], num_cells: int) -> Targets:
    """Return what a detector should answer for some scenes.

    Args:
        scenes: The truth.
        num_cells: Places a side.
    """
    middles = (torch.arange(num_cells) + 0.5) / num_cells
    nouns = torch.zeros(len(scenes), len(NOUNS), num_cells, num_cells)
    places, kinds, looks, boxes = [], [], [], []
    for row, scene in enumerate(scenes):
        for thing in scene.objects:
            center, size = _center_and_size(thing.box)
            cell = [min(int(share * num_cells), num_cells - 1) for share in center]
            kind, spread = list(NOUNS).index(thing.noun), CENTER_SPREAD * max(size)
            falls = [torch.exp(-((middles - middles[at]) ** 2) / (2 * spread**2)) for at in cell]
            bump = falls[1][:, None] * falls[0][None, :]
            nouns[row, kind] = torch.maximum(nouns[row, kind], bump)
            places.append((row, cell[1], cell[0]))
            kinds.append(kind)
            looks.append(LOOK_WORDS.index(look_word(thing.noun, thing.color)))
            offset = [share - float(middles[at]) for share, at in zip(center, cell, strict=True)]
            boxes.append((*offset, *size))
    return Targets(
        nouns=nouns,
        places=torch.tensor(places),
        kinds=torch.tensor(kinds),
        looks=torch.tensor(looks),
        boxes=torch.tensor(boxes),
    )


def detection_loss(seen: Seen, wanted: Targets) -> dict[str, Tensor]:
    """Return the terms of a detector's loss by name.

    Args:
        seen: Its answers.
        wanted: What they should be.
    """
    found, target = seen.nouns.sigmoid().clamp(1e-4, 1 - 1e-4), wanted.nouns
    rows, down, across = wanted.places.unbind(1)
    at_center = torch.zeros_like(target)
    at_center[rows, wanted.kinds, down, across] = 1
    missed = -((1 - found) ** 2) * found.log() * at_center
    false = -((1 - target) ** 4) * found**2 * (1 - found).log() * (1 - at_center)
    looks, boxes = (part[rows, :, down, across] for part in (seen.looks, seen.boxes))
    return {
        "centers": (missed + false).sum() / len(rows),
        "looks": F.cross_entropy(looks, wanted.looks, label_smoothing=0.05),
        "boxes": F.l1_loss(boxes, wanted.boxes),
    }


def save_detector(detector: Detector, folder: Path, *, metrics: Mapping[str, float]) -> Path:
    """Write a detector as safetensors with its shape.

    Args:
        detector: Trained.
        folder: Made if missing.
        metrics: What was measured of it.

    Returns:
        The folder.
    """
    return save_network(detector, folder, "detector", metrics=metrics)


def load_detector(folder: Path) -> Detector:
    """Read what `save_detector` wrote, frozen; a CheckpointError says what is missing.

    Args:
        folder: With detector.json and detector.safetensors.
    """
    return load_network(
        folder,
        "detector",
        lambda **shape: Detector(DetectorShape(**shape)),
        command="fewstroke train detector",
        param="second_judge",
    )


def _center_and_size(box: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    center = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
    return center, (box.x1 - box.x0, box.y1 - box.y0)
