"""Fitting one object to a part of a picture: paint it, compare, improve."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from scenes.judge_templates import (
    COARSE_SIDES_PX,
    STAMP_PAD_PX,
    Look,
    Stamp,
    TemplateBank,
    by_channel,
    describe,
)
from scenes.vocabulary import COLORS, DETAILS, NOUNS, SIZES_PX

# A pixel this wrong, summed over channels, is as wrong as any other wrong pixel.
FULL_ERROR = 0.6
# Above this share of unexplained error, a better explanation is sought.
GOOD_UNEXPLAINED = 0.15
NUM_SLID_SIZES = 8
SIDES_PX = tuple(side for sides in SIZES_PX.values() for side in sides)


@dataclass(frozen=True, slots=True)
class Pose:
    """A look, its detail, and its sprite's top left corner in pixels."""

    look: Look
    detail: str
    left: int
    top: int


@dataclass(frozen=True, slots=True)
class Fit:
    """A pose and its error: wrong pixels, each counted up to 1."""

    pose: Pose
    error: float


class View:
    """A part of a picture in which one object is sought.

    Args:
        bank: What objects look like.
        image: The whole picture.
        under: What is painted behind the object.
        counts: Which pixels tell about this object.
        noise: Error of one pixel, summed over channels, that means nothing.
        over_rgb: What is painted in front of it, premultiplied.
        over_alpha: How much that hides.
        soft_px: Deviation of a blur through which picture and painting are compared.
    """

    def __init__(
        self,
        bank: TemplateBank,
        image: Float[np.ndarray, "h w 3"],
        *,
        under: Float[np.ndarray, "h w 3"],
        counts: Bool[np.ndarray, "h w"],
        noise: float,
        over_rgb: Float[np.ndarray, "h w 3"] | None = None,
        over_alpha: Float[np.ndarray, "h w"] | None = None,
        soft_px: float = 0.0,
    ) -> None:
        rows, columns = np.flatnonzero(counts.any(axis=1)), np.flatnonzero(counts.any(axis=0))
        self._y0, self._x0 = int(rows[0]), int(columns[0])
        part = (slice(self._y0, int(rows[-1]) + 1), slice(self._x0, int(columns[-1]) + 1))
        self._bank, self._noise, self._soft_px = bank, noise, soft_px
        self._image, self._under = by_channel(image[part]), by_channel(under[part])
        self._weights = counts[part].astype(np.float32)
        self._over_rgb = None if over_rgb is None else by_channel(over_rgb[part])
        self._over_through = None if over_alpha is None else 1 - over_alpha[part]
        empty = self._under
        if self._over_rgb is not None and self._over_through is not None:
            empty = self._over_rgb + self._over_through * empty
        self._empty_errors = self._errors(self._image - empty) * self._weights
        self.empty_error = float(self._empty_errors.sum())
        self._fits: dict[Pose, Fit] = {}  # half of all poses are asked for again

    def fit(self, pose: Pose) -> Fit:
        """Return how wrong the picture is with an object in this pose."""
        fit = self._fits.get(pose)
        if fit is None:
            fit = self._fits[pose] = self._painted(pose)
        return fit

    def _painted(self, pose: Pose) -> Fit:
        stamp: Stamp = self._bank.stamp(pose.look, pose.detail)
        height, width = stamp.alpha.shape
        top, left = pose.top - STAMP_PAD_PX - self._y0, pose.left - STAMP_PAD_PX - self._x0
        y0, x0 = max(0, top), max(0, left)
        y1 = min(self._weights.shape[0], top + height)
        x1 = min(self._weights.shape[1], left + width)
        if y1 <= y0 or x1 <= x0:
            return Fit(pose, self.empty_error + float(stamp.alpha.sum()))
        here = (..., slice(y0, y1), slice(x0, x1))
        there = (..., slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        painted = stamp.rgb[there] + (1 - stamp.alpha[there]) * self._under[here]
        if self._over_rgb is not None and self._over_through is not None:
            painted = self._over_rgb[here] + self._over_through[here] * painted
        errors = (self._errors(self._image[here] - painted) * self._weights[here]).sum()
        elsewhere = self.empty_error - float(self._empty_errors[here].sum())
        # What would be painted where nothing was seen, or where others stand, counts as wrong.
        outside = float(stamp.solid.sum()) - float((stamp.solid[there] * self._weights[here]).sum())
        return Fit(pose, float(errors) + elsewhere + outside)

    def best(self, poses: Iterable[Pose]) -> Fit:
        """Return the best of some poses."""
        return min((self.fit(pose) for pose in poses), key=lambda fit: fit.error)

    def improve(self, fit: Fit, styles: tuple[str, ...], *, num_rounds: int = 2) -> Fit:
        """Change one property of a pose at a time until nothing gets better.

        Args:
            fit: Where to start.
            styles: The styles that may be tried.
            num_rounds: At most this many passes over all properties.
        """
        for _ in range(num_rounds):
            before = fit.error
            fit = self.slide(fit)
            fit = self._resize(fit)
            fit = min(fit, self.best(_recolored(fit.pose)), key=_error)
            fit = min(fit, self.best(_restyled(self._bank, fit.pose, styles)), key=_error)
            if fit.error > before - 0.5:
                break
        return fit

    def slide(self, fit: Fit) -> Fit:
        """Move a pose pixel by pixel downhill."""
        for _ in range(6):
            pose = fit.pose
            around = self.best(
                replace(pose, left=pose.left + dx, top=pose.top + dy)
                for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1))
            )
            if around.error >= fit.error:
                break
            fit = around
        return fit

    def _resize(self, fit: Fit) -> Fit:
        """Try other sizes; where nothing fits well yet, each of them in its own best place."""
        sized = sorted((self.fit(pose) for pose in _resized(self._bank, fit.pose)), key=_error)
        if sized[0].error > GOOD_UNEXPLAINED * self.empty_error:
            sized = [self.slide(each) for each in sized[:NUM_SLID_SIZES]]  # thin lines, above all
        return min([fit, *sized], key=_error)

    def color_margin(self, fit: Fit) -> float:
        """Return how much worse the next best colour fits, as a share of the object's area."""
        others = [pose for pose in _recolored(fit.pose) if pose.look.color != fit.pose.look.color]
        area = float(self._bank.stamp(fit.pose.look, fit.pose.detail).solid.sum())
        return (self.best(others).error - fit.error) / area

    def _errors(self, difference: Float[np.ndarray, "3 a b"]) -> Float[np.ndarray, "a b"]:
        if self._soft_px:  # blurring is linear: a blurred difference is the difference of blurs
            sigma = (0, self._soft_px, self._soft_px)
            difference = ndimage.gaussian_filter(difference, sigma, mode="nearest", truncate=2)
        red, green, blue = np.abs(difference, out=difference)
        size = red + green + blue
        size -= np.float32(self._noise)
        np.maximum(size, 0, out=size)
        np.minimum(size, np.float32(FULL_ERROR), out=size)
        size /= np.float32(FULL_ERROR)
        return size


def coarse_poses(
    bank: TemplateBank,
    image: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    styles: tuple[str, ...],
    *,
    num: int,
) -> list[Pose]:
    """Return poses of the objects whose silhouette and colours are most like a masked part.

    Args:
        bank: What objects look like.
        image: The picture.
        mask: The part that one object fills.
        styles: Only these.
        num: How many, at most.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    side = max(height, width)
    coarse = min(COARSE_SIDES_PX, key=lambda known: abs(known - side))
    nearest = min(SIDES_PX, key=lambda known: abs(known - side))
    poses = []
    for found in bank.nearest(describe(image, mask), styles, coarse, num):
        look = replace(found, side_px=nearest)
        stamp = bank.stamp(look, "plain")
        left = int(columns[0]) + round((width - stamp.width) / 2)
        top = int(rows[0]) + round((height - stamp.height) / 2)
        poses.append(Pose(look, "plain", left, top))
    return poses


def _error(fit: Fit) -> float:
    return fit.error


def _resized(bank: TemplateBank, pose: Pose) -> list[Pose]:
    """Return the pose in the neighbouring sizes, its middle or one of its corners kept."""
    place = SIDES_PX.index(pose.look.side_px)
    stamp = bank.stamp(pose.look, pose.detail)
    poses = []
    for side in SIDES_PX[max(0, place - 2) : place + 3]:
        if side == pose.look.side_px:
            continue
        look = replace(pose.look, side_px=side)
        other = bank.stamp(look, pose.detail)
        dx, dy = stamp.width - other.width, stamp.height - other.height
        poses += [
            Pose(look, pose.detail, pose.left + x, pose.top + y)
            for x, y in {(0, 0), (dx, 0), (0, dy), (dx, dy), (round(dx / 2), round(dy / 2))}
        ]
    return poses


def _recolored(pose: Pose) -> list[Pose]:
    own = NOUNS[pose.look.noun].own_color
    return [
        replace(pose, look=replace(pose.look, color=color))
        for color in (None, *COLORS)
        if color is None or color != own
    ]


def _restyled(bank: TemplateBank, pose: Pose, styles: tuple[str, ...]) -> list[Pose]:
    """Return the pose in other styles and details.

    An outline makes an object look larger, so its detail and its size are changed together too:
    either change alone would look worse.
    """
    poses = [pose, *_resized(bank, pose)]
    return [
        replace(each, look=replace(each.look, style=style), detail=detail)
        for style in styles
        for detail in DETAILS
        for each in (poses if detail != pose.detail else poses[:1])
    ]
