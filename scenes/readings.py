"""What a judge says about a picture."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from scenes.compose import Box, Scene
from scenes.vocabulary import NOUNS, SIZES_PX

# Two boxes are the same place from this intersection over union on.
SAME_PLACE_IOU = 0.5


@runtime_checkable
class Judge(Protocol):
    """Reads scenes from pictures, knowing nothing about who painted them."""

    def read(self, image: UInt8[np.ndarray, "h w 3"]) -> "Reading":
        """Say what a picture shows.

        Args:
            image: RGB, CANVAS_PX square.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenObject:
    """One thing that a judge found.

    Attributes:
        noun: A key of NOUNS; None if the judge is unsure.
        color: A key of COLORS, or None for a natural look that no one word names. A natural apple
            is red, as a tinted one would be.
        color_is_sure: False if two colours fit about equally well.
        size: A key of SIZES_PX; None if the judge is unsure of the object.
        box: Where it stands.
        z: Painting order; higher stands in front.
        unexplained: Share of what is seen there that the best picture of it leaves unexplained.
    """

    noun: str | None
    color: str | None
    color_is_sure: bool
    size: str | None
    box: Box
    z: int
    unexplained: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """All that a judge found in one picture.

    Attributes:
        objects: In no particular order.
        background: A key of BACKGROUNDS; None if no known one is there.
        style: One of STYLES; None if unsure, or if there is no object to tell it from.
        detail: One of DETAILS; None as for the style.
    """

    objects: tuple[SeenObject, ...]
    background: str | None
    style: str | None
    detail: str | None

    @property
    def abstains(self) -> bool:
        """Whether anything that a picture must show stayed unsure."""
        return self.background is None or any(
            thing.noun is None or not thing.color_is_sure for thing in self.objects
        )


def reads_exactly(reading: Reading, scene: Scene) -> bool:
    """Return whether a reading tells the whole scene.

    All objects with noun, colour, size word and place, nothing more, the background and the style.
    Of objects that overlap it also tells which stands in front.

    Args:
        reading: What was seen.
        scene: What is there.
    """
    if (reading.background, reading.style) != (scene.background, scene.style):
        return False
    if len(reading.objects) != len(scene.objects) or reading.abstains:
        return False
    left = list(reading.objects)
    matched = []
    for thing in scene.objects:
        wanted = (thing.noun, look_word(thing.noun, thing.color), thing.size)
        fits = [
            seen
            for seen in left
            if (seen.noun, seen.color, seen.size) == wanted
            and box_iou(seen.box, thing.box) >= SAME_PLACE_IOU
        ]
        if not fits:
            return False
        matched.append(max(fits, key=lambda seen: box_iou(seen.box, thing.box)))
        left.remove(matched[-1])
    return scene.relation != "in front of" or matched[0].z > matched[1].z


def look_word(noun: str, color: str | None) -> str | None:
    """Return the colour word of a look; natural looks that one word names have that word.

    Args:
        noun: A key of NOUNS.
        color: A key of COLORS, or None for its own look.
    """
    return NOUNS[noun].own_color if color is None else color


def size_word(side_px: int) -> str:
    """Return the nearest size word of a longer side in pixels."""
    return min(SIZES_PX, key=lambda name: min(abs(side_px - known) for known in SIZES_PX[name]))


def box_iou(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes, 0..1."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box.x1 - box.x0) * (box.y1 - box.y0) for box in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0
