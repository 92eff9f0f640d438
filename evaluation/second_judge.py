"""A second judge, built otherwise: a trained network names noun and colour cell by cell.

`scenes.judge` compares pixels with every look that it knows; this one has learned from examples and
knows no looks. Where two judges so different agree, neither is fooled by its own weakness alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy import ndimage
from torch import Tensor

from core.errors import InputError
from distill.features import Classifier
from evaluation.intervals import Rate, wilson
from evaluation.model import Judged
from evaluation.predicates import satisfies
from scenes.compose import Box
from scenes.readings import Judge, Reading, SeenObject, look_word, size_word
from scenes.vocabulary import CANVAS_PX, COLORS, NOUNS
from training.autoencoder import to_tensor
from training.data import encoder_name

# A thing is there where the network believes so at least this much, summed over its cells.
MIN_EVIDENCE = 0.75


class CellJudge:
    """Reads objects, their colours and places; backdrops and styles it knows nothing of.

    Args:
        classifier: Dense, of latent scenes, from `fewstroke distill classifier`.
        autoencoder: The one whose latents the classifier knows.

    Raises:
        InputError: If the classifier is of another kind or of another autoencoder.
    """

    def __init__(
        self,
        classifier: Classifier,
        autoencoder: Any,  # noqa: ANN401 - a diffusers autoencoder
    ) -> None:
        shape, encoder = classifier.shape, encoder_name(autoencoder)
        if not shape.is_dense or shape.trained_on != encoder:
            raise InputError(
                f"The classifier knows {shape.trained_on}, the model's latents are of {encoder}: "
                "train one on them (fewstroke distill classifier).",
                param="second_judge",
            )
        self._classifier, self._autoencoder = classifier, autoencoder
        self._scale = float(autoencoder.config["scaling_factor"])

    def read(self, image: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """Say which objects a picture shows, where, and in which colours.

        Args:
            image: RGB, CANVAS_PX square.
        """
        nouns, colors = self._beliefs(image)
        named = nouns.argmax(axis=-1)
        objects = []
        for noun in np.unique(named[named > 0]):
            parts, count = ndimage.label(named == noun)
            for part in range(1, count + 1):
                cells = parts == part
                if nouns[cells][:, noun].sum() >= MIN_EVIDENCE:
                    objects.append(_seen(int(noun), cells, nouns, colors))
        return Reading(objects=tuple(objects), background=None, style=None, detail=None)

    @torch.inference_mode()
    def _beliefs(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float[np.ndarray, "c c n"], Float[np.ndarray, "c c k"]]:
        encoded = self._autoencoder.encode(to_tensor(np.ascontiguousarray(image)[None]))
        latent: Tensor = (
            encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
        )
        answers = self._classifier.answers(latent.float() * self._scale)
        side = round(len(answers[0]) ** 0.5)
        nouns, colors = (
            answer.softmax(-1).unflatten(0, (side, side)).numpy() for answer in answers
        )
        return nouns, colors


def agreement(judged: Sequence[Judged], second: Judge) -> Rate:
    """Return how often a second judge calls right what the first does, and wrong what it does.

    Args:
        judged: Pictures that the first judge has read.
        second: Reads the same pictures again.
    """
    same = sum(
        satisfies(second.read(np.asarray(each.image)), each.item) == each.is_right
        for each in judged
    )
    return wilson(same, len(judged))


def _seen(
    noun: int,
    cells: np.ndarray,
    nouns: Float[np.ndarray, "c c n"],
    colors: Float[np.ndarray, "c c k"],
) -> SeenObject:
    word = list(NOUNS)[noun - 1]
    # Index 0 is ground and 1 the object's own look, as scenes.layout counts.
    shares = colors[cells][:, 1:].sum(axis=0)
    shade = int(shares.argmax())
    rows, columns = np.nonzero(cells)
    side = len(cells)
    box = Box(
        x0=float(columns.min()) / side,
        y0=float(rows.min()) / side,
        x1=float(columns.max() + 1) / side,
        y1=float(rows.max() + 1) / side,
    )
    longer = max(box.x1 - box.x0, box.y1 - box.y0) * CANVAS_PX
    return SeenObject(
        noun=word,
        color=look_word(word, None if shade == 0 else list(COLORS)[shade - 1]),
        color_is_sure=True,
        size=size_word(round(longer)),
        box=box,
        z=0,
        unexplained=float(1 - nouns[cells][:, noun].mean()),
    )
