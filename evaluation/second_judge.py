"""A second judge, built otherwise: a trained detector names objects, their colours and places.

`scenes.judge` compares pixels with every look that it knows; this one has learned from examples and
knows no looks. Where two judges so different agree, neither is fooled by its own weakness alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8

from core.errors import InputError
from evaluation.detector import LOOK_WORDS, Detector, Seen
from evaluation.intervals import Rate, wilson
from evaluation.model import Judged
from evaluation.predicates import Item, satisfies
from scenes.compose import Box
from scenes.readings import Reading, SeenObject, box_iou, size_word
from scenes.vocabulary import CANVAS_PX, NOUNS
from training.autoencoder import latent_of, to_tensor
from training.data import encoder_name

# An object is there where the detector believes so at least this much.
MIN_BELIEF = 0.3
# Whoever believes as much as the first is lenient, as much as the second strict; where these would
# call a picture differently, the judge is unsure.
BELIEFS = (0.15, 0.5)
# Two boxes that share so much are one object.
ONE_OBJECT_IOU = 0.55


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How two judges of the same pictures stand to each other.

    Attributes:
        second_right: How often the second calls a picture right.
        everywhere: How often they say the same of a picture.
        decided: How often both are sure of what they say.
        same: How often they then say the same.
    """

    second_right: Rate
    everywhere: Rate
    decided: Rate
    same: Rate


class Verdict(NamedTuple):
    """What a judge says of a picture.

    Attributes:
        is_right: Whether it shows what was asked for.
        is_sure: Whether believing a little more or less would change nothing.
    """

    is_right: bool
    is_sure: bool


@runtime_checkable
class Opinion(Protocol):
    """Says whether a picture shows what was asked for, and how sure that is."""

    def verdict(self, image: UInt8[np.ndarray, "h w 3"], item: Item) -> "Verdict":
        """Return whether it does.

        Args:
            image: RGB, CANVAS_PX square.
            item: What was asked for.
        """


class DetectorJudge:
    """Reads objects, their colours and places; backdrops and styles it knows nothing of.

    Args:
        detector: From `fewstroke train detector`.
        autoencoder: The one whose latents the detector knows.

    Raises:
        InputError: If the detector is of another autoencoder.
    """

    def __init__(
        self,
        detector: Detector,
        autoencoder: Any,  # noqa: ANN401 - a diffusers autoencoder
    ) -> None:
        encoder = encoder_name(autoencoder)
        if detector.shape.trained_on != encoder:
            raise InputError(
                f"The detector knows latents of {detector.shape.trained_on}, the model's are of "
                f"{encoder}: train one on them (fewstroke train detector).",
                param="second_judge",
            )
        self._detector, self._autoencoder = detector, autoencoder
        self._scale = float(autoencoder.config["scaling_factor"])

    def read(self, image: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """Say which objects a picture shows, where, and in which colours.

        Args:
            image: RGB, CANVAS_PX square.
        """
        return reading_of(self._look(image), MIN_BELIEF)

    def verdict(self, image: UInt8[np.ndarray, "h w 3"], item: Item) -> Verdict:
        """Return whether a picture shows what was asked for, and whether that hangs on a belief.

        Args:
            image: RGB, CANVAS_PX square.
            item: What was asked for.
        """
        seen = self._look(image)
        lenient, says, strict = (
            satisfies(reading_of(seen, belief), item)
            for belief in (BELIEFS[0], MIN_BELIEF, BELIEFS[1])
        )
        return Verdict(is_right=says, is_sure=lenient == strict == says)

    @torch.inference_mode()
    def _look(self, image: UInt8[np.ndarray, "h w 3"]) -> Seen:
        pixels = to_tensor(np.array(image)[None])  # PIL lends memory that torch may not write
        latent = latent_of(self._autoencoder, pixels)
        answers: Seen = self._detector(latent * self._scale)
        return answers


def reading_of(seen: Seen, min_belief: float) -> Reading:
    """Return the objects that a detector believes in.

    Args:
        seen: Its answers for one picture.
        min_belief: How much it must believe, 0..1.
    """
    beliefs, kinds = seen.nouns[0].sigmoid().max(dim=0)
    is_peak = beliefs == F.max_pool2d(beliefs[None], 3, stride=1, padding=1)[0]
    places = (is_peak & (beliefs >= min_belief)).nonzero().tolist()
    looks = seen.looks[0].softmax(dim=0)
    objects: list[SeenObject] = []
    for down, across in sorted(places, key=lambda place: -float(beliefs[tuple(place)])):
        box = _box(seen.boxes[0, :, down, across].tolist(), down, across, len(beliefs))
        if any(box_iou(box, other.box) > ONE_OBJECT_IOU for other in objects):
            continue
        share, look = looks[:, down, across].max(dim=0)
        longer = max(box.x1 - box.x0, box.y1 - box.y0) * CANVAS_PX
        objects.append(
            SeenObject(
                noun=list(NOUNS)[int(kinds[down, across])],
                color=LOOK_WORDS[int(look)],
                color_is_sure=bool(share >= min_belief),
                size=size_word(round(longer)),
                box=box,
                z=0,
                unexplained=1 - float(beliefs[down, across]),
            )
        )
    return Reading(objects=tuple(objects), background=None, style=None, detail=None)


def agreement(judged: Sequence[Judged], second: Opinion) -> Agreement:
    """Return how often a second judge calls right what the first does, and wrong what it does.

    A first judge that finds wrong what holds a thing it cannot name, or a colour that it is unsure
    of, is not sure itself. Its own rates count such pictures as wrong.

    Args:
        judged: Pictures that the first judge has read.
        second: Reads the same pictures again.
    """
    verdicts = [second.verdict(np.array(each.image), each.item) for each in judged]
    pairs = list(zip(verdicts, judged, strict=True))
    sure = [
        verdict.is_right == each.is_right
        for verdict, each in pairs
        if verdict.is_sure and is_sure(each)
    ]
    agreed = sum(verdict.is_right == each.is_right for verdict, each in pairs)
    return Agreement(
        second_right=wilson(sum(verdict.is_right for verdict in verdicts), len(pairs)),
        everywhere=wilson(agreed, len(pairs)),
        decided=wilson(len(sure), len(pairs)),
        same=wilson(sum(sure), len(sure)),
    )


def is_sure(judged: Judged) -> bool:
    """Return whether the first judge's verdict hangs on nothing that it is unsure of.

    Args:
        judged: A picture that it has read.
    """
    named = [thing.noun is not None and thing.color_is_sure for thing in judged.reading.objects]
    return judged.is_right or all(named)


def _box(numbers: Sequence[float], down: int, across: int, num_cells: int) -> Box:
    right, below, width, height = numbers
    x, y = (across + 0.5) / num_cells + right, (down + 0.5) / num_cells + below
    return Box(x0=x - width / 2, y0=y - height / 2, x1=x + width / 2, y1=y + height / 2)
