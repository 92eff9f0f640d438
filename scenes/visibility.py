"""Whether an object can be told from what is behind it, and whether a tint keeps its name."""

from functools import cache

import numpy as np
from jaxtyping import Float
from skimage.color import rgb2lab

from scenes.effects import backdrop
from scenes.sprites import SpriteSheet
from scenes.vocabulary import COLORS, NOUNS, SIZES_PX

# Smallest median Lab distance between an object and its background.
MIN_DISTANCE_LAB = 24.0
# A tint must be nearest to its own palette colour by at least this much in Lab.
MIN_COLOR_MARGIN_LAB = 4.0


@cache
def is_visible(
    noun: str, color: str | None, background: str, style: str, sheet: SpriteSheet
) -> bool:
    """Return whether an object stands out from a background and keeps its colour's name.

    Args:
        noun: A key of NOUNS.
        color: A key of COLORS, or None for its own look.
        background: A key of BACKGROUNDS.
        style: One of STYLES.
        sheet: Where sprites come from.
    """
    if color is not None and not keeps_color(noun, color, sheet):
        return False
    sprite = sheet.sprite(noun, color, SIZES_PX["medium"][1], style)
    solid = sprite[..., 3] > 0.6
    object_lab = rgb2lab(sprite[..., :3])[solid]
    behind = rgb2lab(backdrop(background, style)[::16, 0])
    distances = np.linalg.norm(object_lab[:, None] - behind[None], axis=-1).min(axis=1)
    return float(np.median(distances)) >= MIN_DISTANCE_LAB


@cache
def keeps_color(noun: str, color: str, sheet: SpriteSheet) -> bool:
    """Return whether the tinted object is nearest to its own colour among the palette.

    Args:
        noun: A key of NOUNS.
        color: A key of COLORS.
        sheet: Where sprites come from.
    """
    if color == NOUNS[noun].own_color:
        return True
    look = _median_lab(sheet.sprite(noun, color, SIZES_PX["large"][0], "natural"))
    palette = {name: rgb2lab(np.asarray(rgb, np.float32) / 255) for name, rgb in COLORS.items()}
    distances = {name: float(np.linalg.norm(look - lab)) for name, lab in palette.items()}
    own = distances.pop(color)
    return own + MIN_COLOR_MARGIN_LAB <= min(distances.values())


def _median_lab(sprite: Float[np.ndarray, "h w 4"]) -> Float[np.ndarray, "3"]:
    return np.median(rgb2lab(sprite[..., :3])[sprite[..., 3] > 0.6], axis=0)
