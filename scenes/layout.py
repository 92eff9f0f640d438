"""What stands in each cell of a picture: a coarse map of a scene's truth."""

import numpy as np
from jaxtyping import UInt8

from scenes.compose import Scene
from scenes.sprites import SpriteSheet
from scenes.vocabulary import CANVAS_PX, COLORS, NOUNS

# Index 0 of either channel is empty ground; index 1 of the colours is an object's own look.
NUM_NOUN_CLASSES = 1 + len(NOUNS)
NUM_COLOR_CLASSES = 2 + len(COLORS)

MIN_COVER = 0.25


def layout(
    scene: Scene, sheet: SpriteSheet, *, num_cells: int
) -> UInt8[np.ndarray, "cells cells 2"]:
    """Return noun and colour class of the object that shows most in each cell.

    Args:
        scene: The truth.
        sheet: Where sprites come from; their shapes decide what is covered.
        num_cells: Cells a side, a divisor of CANVAS_PX.

    Returns:
        Per cell the noun's class (0 where objects show in less than a quarter of the cell, else
        1 + place in NOUNS) and the colour's (0, 1 for an object's own look, 2 + place in COLORS).
    """
    showing = np.zeros((len(scene.objects), CANVAS_PX, CANVAS_PX), np.float32)
    for thing in sorted(scene.objects, key=lambda each: each.z):
        alpha = sheet.sprite(thing.noun, thing.color, thing.side_px, scene.style)[..., 3]
        top, left = round(thing.box.y0 * CANVAS_PX), round(thing.box.x0 * CANVAS_PX)
        place = np.s_[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        showing[(slice(None), *place)] *= 1 - alpha  # what stands in front hides what is behind
        showing[(scene.objects.index(thing), *place)] += alpha
    side = CANVAS_PX // num_cells
    cover = showing.reshape(-1, num_cells, side, num_cells, side).mean(axis=(2, 4))
    front = cover.argmax(axis=0)
    classes = np.array([_classes(thing.noun, thing.color) for thing in scene.objects], np.uint8)
    return np.where((cover.sum(axis=0) >= MIN_COVER)[..., None], classes[front], 0).astype(np.uint8)


def _classes(noun: str, color: str | None) -> tuple[int, int]:
    return 1 + list(NOUNS).index(noun), 1 if color is None else 2 + list(COLORS).index(color)
