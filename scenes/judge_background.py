"""Which backdrop a picture has, and what stands out from it."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from scenes.effects import backdrop
from scenes.vocabulary import BACKGROUNDS, CANVAS_PX, STYLES

# Distance in RGB, 0..1 per channel, at which a pixel half belongs to a backdrop.
SOFTNESS = 0.05
# Less of the canvas than this in a backdrop's colours: nobody knows what is behind.
MIN_SHARE = 0.22
# A runner-up this close makes the backdrop unsure.
MIN_MARGIN = 0.02
MIN_OBJECT_PX = 60
# Sum over channels; a shadow's faint rim lies below it, a pale object's paper above.
FOREGROUND_DISTANCE = 0.10
GAIN_RANGE = (0.85, 1.18)


@dataclass(frozen=True, slots=True)
class Ground:
    """A picture freed of gain, and what is behind its objects.

    Attributes:
        image: The picture, 0..1, its gain undone.
        canvas: The empty backdrop as this picture shows it.
        background: A key of BACKGROUNDS; None if unsure.
        styles: The styles whose backdrop looks like this.
        noise: Typical deviation of one pixel from the backdrop, summed over channels.
    """

    image: Float[np.ndarray, "h w 3"]
    canvas: Float[np.ndarray, "h w 3"]
    background: str | None
    styles: tuple[str, ...]
    noise: float


def find_ground(image: UInt8[np.ndarray, "h w 3"]) -> Ground:
    """Return the backdrop that most of a picture agrees with.

    Args:
        image: RGB, CANVAS_PX square.
    """
    levels = image.astype(np.float32) / 255
    variants = _variants()
    columns = np.stack([column for column, _, _ in variants])
    distance = np.abs(levels[None, ::2, ::2] - columns[:, ::2, None]).max(axis=-1)
    votes = np.exp(-((distance / SOFTNESS) ** 2)).mean(axis=(1, 2))
    best = int(votes.argmax())
    column, background, styles = variants[best]
    rivals = [
        vote for vote, (_, name, _) in zip(votes, variants, strict=True) if name != background
    ]
    sure = votes[best] >= MIN_SHARE and votes[best] - max(rivals) >= MIN_MARGIN
    canvas = np.repeat(column[:, None], CANVAS_PX, axis=1)
    near = np.abs(levels - canvas).max(axis=-1) < 0.12
    if near.any():
        gain = float(np.clip(np.median(levels[near] / np.maximum(canvas[near], 0.02)), *GAIN_RANGE))
        levels = levels / gain
        canvas = canvas + np.median(levels[near] - canvas[near], axis=0)
    behind = np.abs(levels - canvas).sum(axis=-1)
    noise = float(np.median(behind[behind < 0.3])) if (behind < 0.3).any() else 0.0
    return Ground(levels, canvas, background if sure else None, styles, noise)


def foreground(
    ground: Ground, distance: Float[np.ndarray, "h w"], *, ignore_shadows: bool
) -> Bool[np.ndarray, "h w"]:
    """Return which pixels belong to objects.

    Args:
        ground: The picture and its backdrop.
        distance: How far each pixel is from what is painted so far, summed over channels.
        ignore_shadows: Leave out pixels that are the backdrop, only darker.
    """
    threshold = max(FOREGROUND_DISTANCE, 3.0 * ground.noise)
    if ground.noise > 0.015:
        distance = ndimage.uniform_filter(distance, 3)
    mask = distance > threshold
    if ignore_shadows:
        mask &= ~shadow_like(ground)
        mask = ndimage.binary_opening(mask)
    return ndimage.binary_fill_holes(mask)


def shadow_like(ground: Ground) -> Bool[np.ndarray, "h w"]:
    """Return which pixels are the backdrop, darkened by at most what a shadow takes."""
    image, canvas = ground.image, ground.canvas
    share = (image * canvas).sum(axis=-1) / np.maximum((canvas**2).sum(axis=-1), 1e-6)
    off = np.abs(image - share[..., None] * canvas).sum(axis=-1)
    return (share < 0.99) & (share > 0.58) & (off < max(0.05, 2.0 * ground.noise))


def components(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Return connected parts, numbered from 1; crumbs are dropped, near parts joined.

    Args:
        mask: Which pixels belong to objects.
    """
    joined = ndimage.binary_dilation(mask, iterations=1)
    labels, _ = ndimage.label(joined)
    labels = np.where(mask, labels, 0)
    sizes = np.bincount(labels.ravel())
    keep = np.flatnonzero(sizes >= MIN_OBJECT_PX)
    renumber = np.zeros(len(sizes), np.int64)
    renumber[keep[keep > 0]] = np.arange(1, np.count_nonzero(keep) + 1)
    return renumber[labels]


def around(mask: Bool[np.ndarray, "h w"], pad_px: int) -> Bool[np.ndarray, "h w"]:
    """Return the box of a mask, wider by `pad_px` on every side."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.zeros_like(mask)
    box[
        max(0, rows[0] - pad_px) : rows[-1] + pad_px + 1,
        max(0, columns[0] - pad_px) : columns[-1] + pad_px + 1,
    ] = True
    return box


@cache
def _variants() -> tuple[tuple[Float[np.ndarray, "h 3"], str, tuple[str, ...]], ...]:
    """Return every different backdrop, its name, and the styles that have it."""
    found: list[tuple[Float[np.ndarray, "h 3"], str, tuple[str, ...]]] = []
    for background in BACKGROUNDS:
        columns: dict[bytes, tuple[Float[np.ndarray, "h 3"], list[str]]] = {}
        for style in STYLES:
            column = backdrop(background, style)[:, 0]
            columns.setdefault(column.tobytes(), (column, []))[1].append(style)
        found += [(column, background, tuple(styles)) for column, styles in columns.values()]
    return tuple(found)
