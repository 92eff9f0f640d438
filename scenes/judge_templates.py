"""What every object can look like, as the judge compares it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from skimage.color import rgb2lab

from scenes.effects import PADDING_PX, SHADOW_OFFSET_PX, add_outline, add_shadow
from scenes.sprites import SpriteSheet
from scenes.vocabulary import COLORS, NOUNS

GRID = 20
# The middle size of each size word stands for it in the coarse search.
COARSE_SIDES_PX = (34, 47, 64)
ASPECT_WEIGHT = 6.0
ALPHA_WEIGHT = 1.0
STAMP_PAD_PX = PADDING_PX + max(SHADOW_OFFSET_PX)


@dataclass(frozen=True, slots=True)
class Look:
    """One way an object can be painted.

    Attributes:
        noun: A key of NOUNS.
        color: A key of COLORS; None for its own look.
        style: One of STYLES.
        side_px: Longer side in pixels.
    """

    noun: str
    color: str | None
    style: str
    side_px: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """A look with its detail, ready to be painted: `rgb + (1 - alpha) * behind`.

    Attributes:
        rgb: Premultiplied colours by channel, STAMP_PAD_PX larger than the sprite on every side.
        alpha: How much of what is behind it hides.
        solid: How much of that the object itself hides.
        width: Sprite width in pixels.
        height: Sprite height in pixels.
    """

    rgb: Float[np.ndarray, "3 a b"]
    alpha: Float[np.ndarray, "a b"]
    solid: Float[np.ndarray, "a b"]
    width: int
    height: int


class TemplateBank:
    """All looks of all objects, made when first needed.

    Args:
        sheet: Where sprites come from.
    """

    def __init__(self, sheet: SpriteSheet) -> None:
        self._sheet = sheet
        self._coarse: dict[
            tuple[str, int], tuple[Float[np.ndarray, "t f"], Float[np.ndarray, t]]
        ] = {}
        self.stamp = lru_cache(maxsize=6000)(self._make_stamp)

    @property
    def colored_nouns(self) -> list[tuple[str, str | None]]:
        """Every noun in every colour that is not its own look already, and in its own look."""
        return [
            (noun, color)
            for noun in NOUNS
            for color in (None, *COLORS)
            if color is None or color != NOUNS[noun].own_color
        ]

    def nearest(
        self, features: Float[np.ndarray, "f"], styles: tuple[str, ...], side_px: int, num: int
    ) -> list[Look]:
        """Return the looks most like what `describe` saw, best first.

        Args:
            features: From `describe`.
            styles: Only these.
            side_px: One of COARSE_SIDES_PX.
            num: How many.
        """
        looks: list[tuple[float, Look]] = []
        for style in styles:
            table, squares = self._table(style, side_px)
            distances = squares - 2 * (table @ features)
            looks += [
                (float(distances[place]), Look(noun, color, style, side_px))
                for place in np.argsort(distances)[:num]
                for noun, color in [self.colored_nouns[place]]
            ]
        looks.sort(key=lambda scored: scored[0])
        return [look for _, look in looks[:num]]

    def _table(
        self, style: str, side_px: int
    ) -> tuple[Float[np.ndarray, "t f"], Float[np.ndarray, "t"]]:
        key = (style, side_px)
        if key not in self._coarse:
            sprites = [
                self._sheet.sprite(noun, color, side_px, style)
                for noun, color in self.colored_nouns
            ]
            table = np.stack(
                [describe(sprite[..., :3], sprite[..., 3] > 0.5) for sprite in sprites]
            )
            self._coarse[key] = (table, (table**2).sum(axis=1))
        return self._coarse[key]

    def _make_stamp(self, look: Look, detail: str) -> Stamp:
        sprite = self._sheet.sprite(look.noun, look.color, look.side_px, look.style)
        alpha = sprite[..., 3]
        height, width = alpha.shape
        shape = (height + 2 * STAMP_PAD_PX, width + 2 * STAMP_PAD_PX, 3)
        # Painted on black and on white, a layer tells both its colours and its alpha.
        black, white = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        for canvas in (black, white):
            if detail == "soft shadow":
                add_shadow(canvas, alpha, STAMP_PAD_PX, STAMP_PAD_PX)
            elif detail == "dark outline":
                add_outline(canvas, alpha, STAMP_PAD_PX, STAMP_PAD_PX)
        inside = (slice(STAMP_PAD_PX, -STAMP_PAD_PX),) * 2
        rgb, cover = black, 1 - (white - black)[..., 0]
        rgb[inside] += alpha[..., None] * (sprite[..., :3] - rgb[inside])
        cover[inside] += alpha * (1 - cover[inside])
        solid = np.zeros(shape[:2], np.float32)
        solid[inside] = alpha
        return Stamp(by_channel(rgb), cover, solid, width, height)


def by_channel(picture: Float[np.ndarray, "a b 3"]) -> Float[np.ndarray, "3 a b"]:
    """Return a picture channel by channel: numpy is several times faster over long last axes.

    Args:
        picture: Any.
    """
    return np.ascontiguousarray(np.moveaxis(picture, -1, 0))


def describe(
    rgb: Float[np.ndarray, "a b 3"], mask: Bool[np.ndarray, "a b"]
) -> Float[np.ndarray, "f"]:
    """Return a picture's silhouette and colours on a small grid, stretched to fill it.

    Args:
        rgb: The picture, 0..1.
        mask: Which pixels belong to the object.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(GRID * GRID * 4 + 1, np.float32)
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = mask[box].astype(np.float32)
    lab = rgb2lab(np.clip(rgb[box], 0, 1)).astype(np.float32) - np.array([50, 0, 0], np.float32)
    planes = [inside * ALPHA_WEIGHT, *(inside * lab[..., axis] / 50 for axis in range(3))]
    small = [
        np.asarray(Image.fromarray(plane).resize((GRID, GRID), Image.Resampling.BOX), np.float32)
        for plane in planes
    ]
    aspect = ASPECT_WEIGHT * np.log(inside.shape[1] / inside.shape[0])
    return np.concatenate([*(plane.ravel() for plane in small), [aspect]]).astype(np.float32)
