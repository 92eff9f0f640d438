"""Painting on the canvas: backdrops, pasted sprites, shadows and outlines.

A canvas is a float array `h w 3` in 0..1, changed in place by `add_shadow`, `add_outline`, `paste`.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter

from scenes.vocabulary import BACKGROUNDS, CANVAS_PX

Canvas = Float[np.ndarray, "h w 3"]
Alpha = Float[np.ndarray, "_ _"]

SHADOW_OFFSET_PX = (3, 3)
PADDING_PX = 8


@lru_cache(maxsize=64)
def backdrop(background: str, style: str) -> Canvas:
    """Return the empty canvas of a background in a style; do not write to it.

    Args:
        background: A key of BACKGROUNDS.
        style: One of STYLES. Pixel art has stepped gradients, watercolours stand on paler
            paper, neon on a darker wall.
    """
    top, bottom = (
        np.asarray(rgb, np.float32) / 255
        for rgb in (BACKGROUNDS[background].top, BACKGROUNDS[background].bottom)
    )
    share = np.linspace(0, 1, CANVAS_PX, dtype=np.float32)
    if style == "pixel art":
        share = np.repeat(np.linspace(0, 1, 8, dtype=np.float32), CANVAS_PX // 8)
    column = top + (bottom - top) * share[:, None]
    if style == "watercolor":
        column = 0.25 + 0.75 * column
    elif style == "neon":
        column = 0.6 * column
    return np.repeat(column[:, None], CANVAS_PX, axis=1)


def paste(canvas: Canvas, sprite: Float[np.ndarray, "a b 4"], left: int, top: int) -> None:
    """Paint a sprite over the canvas with its own alpha.

    Args:
        canvas: Changed in place.
        sprite: Straight RGB and alpha, 0..1; parts outside the canvas are cut off.
        left: Pixel column of its left edge.
        top: Pixel row of its top edge.
    """
    blend(canvas, sprite[..., :3], sprite[..., 3], left, top)


def add_shadow(canvas: Canvas, alpha: Alpha, left: int, top: int) -> None:
    """Darken the canvas softly below and to the right of a silhouette.

    Args:
        canvas: Changed in place.
        alpha: The silhouette.
        left: Pixel column of the silhouette's left edge.
        top: Pixel row of its top edge.
    """
    soft = _filtered(alpha, ImageFilter.GaussianBlur(2.0)) * 0.38
    dx, dy = SHADOW_OFFSET_PX
    blend(canvas, np.zeros(3, np.float32), soft, left - PADDING_PX + dx, top - PADDING_PX + dy)


def add_outline(canvas: Canvas, alpha: Alpha, left: int, top: int) -> None:
    """Draw a dark line, about one and a half pixels wide, around a silhouette.

    Args:
        canvas: Changed in place.
        alpha: The silhouette.
        left: Pixel column of the silhouette's left edge.
        top: Pixel row of its top edge.
    """
    grown = _filtered(_filtered_image(alpha, ImageFilter.MaxFilter(5)), ImageFilter.BoxBlur(0.6))
    blend(canvas, np.full(3, 0.1, np.float32), grown, left - PADDING_PX, top - PADDING_PX)


def blend(
    canvas: Canvas,
    rgb: Float[np.ndarray, "*a 3"],
    alpha: Alpha,
    left: int,
    top: int,
) -> None:
    """Mix a colour or picture into the canvas by alpha, cut at the canvas' border."""
    height, width = alpha.shape
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(height, canvas.shape[0] - top), min(width, canvas.shape[1] - left)
    if y1 <= y0 or x1 <= x0:
        return
    target = canvas[top + y0 : top + y1, left + x0 : left + x1]
    share = alpha[y0:y1, x0:x1, None]
    paint = rgb if rgb.ndim == 1 else rgb[y0:y1, x0:x1]
    target += share * (paint - target)


def _filtered_image(alpha: Alpha, image_filter: ImageFilter.Filter) -> Image.Image:
    padded = np.pad(alpha, PADDING_PX)
    return Image.fromarray((padded * 255).round().astype(np.uint8)).filter(image_filter)


def _filtered(source: Alpha | Image.Image, image_filter: ImageFilter.Filter) -> Alpha:
    if isinstance(source, Image.Image):
        image = source.filter(image_filter)
    else:
        image = _filtered_image(source, image_filter)
    return np.asarray(image, np.float32) / 255
