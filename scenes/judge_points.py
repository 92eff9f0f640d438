"""A search for objects at every place: a few points of each look, compared wherever they may lie.

Finds the front one of two overlapping objects, whose outline no single box tells.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from core.seeding import numpy_generator
from scenes.judge_fit import FULL_ERROR, Pose
from scenes.judge_templates import COARSE_SIDES_PX, Look, TemplateBank, by_channel
from scenes.sprites import SpriteSheet
from scenes.vocabulary import CANVAS_PX

NUM_POINTS = 16
STRIDE_PX = 4
NUM_FOUND = 12
SOFTEN_PX = 1.0


@dataclass(frozen=True, slots=True)
class _Points:
    """Points of every look of one style and size: `t` looks, `p` points.

    Attributes:
        looks: The looks.
        places: Of each point, counted row by row on the canvas; the look's corner is at 0.
        rgb: Its colour there.
        areas: Pixels of each look.
        heights: Of each look, in pixels.
        widths: Of each look, in pixels.
    """

    looks: list[Look]
    places: Int[np.ndarray, "t p"]
    rgb: Float[np.ndarray, "3 t p"]
    areas: Float[np.ndarray, "t"]
    heights: Int[np.ndarray, "t"]
    widths: Int[np.ndarray, "t"]


class PointBank:
    """Points of all looks, made when first needed.

    Args:
        sheet: Where sprites come from.
        bank: Which looks there are.
    """

    def __init__(self, sheet: SpriteSheet, bank: TemplateBank) -> None:
        self._sheet, self._bank = sheet, bank
        self._points = lru_cache(maxsize=None)(self._make)

    def search(
        self,
        image: Float[np.ndarray, "h w 3"],
        canvas: Float[np.ndarray, "h w 3"],
        counts: Bool[np.ndarray, "h w"],
        rest: Bool[np.ndarray, "h w"],
        styles: tuple[str, ...],
    ) -> list[Pose]:
        """Return poses that would explain much of what is not explained yet.

        Args:
            image: The picture.
            canvas: The empty backdrop.
            counts: Where an object may lie.
            rest: What is not explained yet.
            styles: Only these.
        """
        soft = ndimage.gaussian_filter(image, (SOFTEN_PX, SOFTEN_PX, 0))
        empty = np.clip(np.abs(soft - canvas).sum(axis=-1), 0, FULL_ERROR) * rest
        scored: list[tuple[float, Pose]] = []
        for style in styles:
            for side in COARSE_SIDES_PX:
                scored += self._score(self._points(style, side), soft, empty, counts)
        scored.sort(key=lambda pair: -pair[0])
        return [pose for _, pose in scored[: 2 * NUM_FOUND]]

    def _score(
        self,
        points: _Points,
        soft: Float[np.ndarray, "h w 3"],
        empty: Float[np.ndarray, "h w"],
        counts: Bool[np.ndarray, "h w"],
    ) -> list[tuple[float, Pose]]:
        rows, columns = np.flatnonzero(counts.any(axis=1)), np.flatnonzero(counts.any(axis=0))
        best = np.full(len(points.looks), -np.inf, np.float32)
        where = np.zeros((len(points.looks), 2), np.int64)
        low_y = max(0, rows[0] - 2)
        low_x = max(0, columns[0] - 2)
        high_y = min(CANVAS_PX, rows[-1] + 3) - int(points.heights.min())
        high_x = min(CANVAS_PX, columns[-1] + 3) - int(points.widths.min())
        colors, uncovered = by_channel(soft).reshape(3, -1), empty.ravel()
        last = CANVAS_PX**2 - 1
        for top in range(low_y, high_y + 1, STRIDE_PX):
            for left in range(low_x, high_x + 1, STRIDE_PX):
                fits = (top + points.heights <= CANVAS_PX) & (left + points.widths <= CANVAS_PX)
                # beyond the canvas any pixel will do: what does not fit does not count
                here = np.minimum(points.places + (top * CANVAS_PX + left), last)
                red, green, blue = np.abs(colors[:, here] - points.rgb)
                wrong = np.minimum(red + green + blue, FULL_ERROR)
                gain = (uncovered[here] - wrong).mean(axis=1) * points.areas
                better = fits & (gain > best)
                best[better] = gain[better]
                where[better] = (top, left)
        order = np.argsort(-best)[:NUM_FOUND]
        return [
            (float(best[t]), Pose(points.looks[t], "plain", int(where[t, 1]), int(where[t, 0])))
            for t in order
            if np.isfinite(best[t])
        ]

    def _make(self, style: str, side_px: int) -> _Points:
        rng = numpy_generator(0, "judge points", style, side_px)
        looks, rows, columns, colors, shapes, areas = [], [], [], [], [], []
        for noun, color in self._bank.colored_nouns:
            sprite = self._sheet.sprite(noun, color, side_px, style)
            solid = sprite[..., 3] > 0.8
            inner = ndimage.binary_erosion(solid, iterations=1)
            y, x = np.nonzero(inner if inner.sum() >= 2 * NUM_POINTS else sprite[..., 3] > 0.4)
            chosen = rng.choice(len(y), NUM_POINTS, replace=len(y) < NUM_POINTS)
            spread = (SOFTEN_PX, SOFTEN_PX, 0)
            mass = ndimage.gaussian_filter(sprite[..., 3:], spread)
            soft = ndimage.gaussian_filter(sprite[..., :3] * sprite[..., 3:], spread)
            soft = soft / np.maximum(mass, 0.05)
            looks.append(Look(noun, color, style, side_px))
            rows.append(y[chosen])
            columns.append(x[chosen])
            colors.append(soft[y[chosen], x[chosen]])
            shapes.append(sprite.shape[:2])
            areas.append(float(sprite[..., 3].sum()))
        heights, widths = np.array(shapes).T
        return _Points(
            looks,
            np.stack(rows) * CANVAS_PX + np.stack(columns),
            by_channel(np.stack(colors).astype(np.float32)),
            np.array(areas, np.float32),
            heights,
            widths,
        )
