"""Parts of a picture in which objects overlap, or touch by their shadows and outlines."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from scenes.judge_background import FOREGROUND_DISTANCE, MIN_OBJECT_PX, Ground
from scenes.judge_fit import Fit, Pose, View, coarse_poses
from scenes.judge_points import PointBank
from scenes.judge_templates import STAMP_PAD_PX, Stamp, TemplateBank

MAX_OBJECTS = 4
# An object more must take away this share of the part's error.
MIN_GAIN = 0.08


@dataclass(frozen=True, slots=True)
class Stack:
    """Objects from back to front, and the error of all of them together."""

    fits: tuple[Fit, ...]
    error: float


class StackFinder:
    """Explains a part of a picture by several objects, one after the other.

    Args:
        bank: What objects look like.
        points: The same, for a search at every place.
        ground: The picture and its backdrop.
        counts: Which pixels tell about this part.
        soft_px: Deviation of a blur through which picture and painting are compared.
    """

    def __init__(
        self,
        bank: TemplateBank,
        points: PointBank,
        ground: Ground,
        counts: Bool[np.ndarray, "h w"],
        *,
        soft_px: float = 0.0,
    ) -> None:
        self._bank, self._points, self._ground, self._counts = bank, points, ground, counts
        self._soft_px = soft_px

    def split(self, cores: list[Bool[np.ndarray, "h w"]]) -> Stack:
        """Return one object for each core.

        Args:
            cores: The middles of objects that do not overlap.
        """
        ground = self._ground
        stack = Stack((), self._view((), 0).empty_error)
        for core in cores:
            poses = coarse_poses(self._bank, ground.image, core, ground.styles, num=12)
            stack = self._add(stack, poses, places={len(stack.fits)})
        return self._refine(stack)

    def find(self) -> Stack:
        """Return the objects that explain the part best, overlapping or not."""
        ground = self._ground
        empty = self._view((), 0).empty_error
        stack = Stack((), empty)
        while len(stack.fits) < MAX_OBJECTS:
            rest = self._unexplained(stack)
            if rest is None:
                break
            poses = coarse_poses(self._bank, ground.image, rest, ground.styles, num=8)
            poses += self._points.search(
                ground.image, ground.canvas, self._counts, rest, ground.styles
            )
            more = self._add(stack, poses, places={len(stack.fits), 0})
            if stack.error - more.error < MIN_GAIN * empty:
                break
            stack = self._refine(more)
        return self._prune(self._reorder(stack), MIN_GAIN * empty)

    def color_margin(self, stack: Stack, place: int) -> float:
        """Return how much worse the next best colour of one object fits.

        Args:
            stack: All objects.
            place: Which one.
        """
        others = stack.fits[:place] + stack.fits[place + 1 :]
        view = self._view(others, place)
        return view.color_margin(view.fit(stack.fits[place].pose))

    def _view(self, others: tuple[Fit, ...], place: int) -> View:
        """Return the view of an object with `place` of the others behind it, the rest in front."""
        under = paint(self._bank, self._ground.canvas, others[:place])
        over_rgb = over_alpha = None
        if others[place:]:
            black = paint(self._bank, np.zeros_like(under), others[place:])
            white = paint(self._bank, np.ones_like(under), others[place:])
            over_rgb, over_alpha = black, 1 - (white - black)[..., 0]
        ground = self._ground
        return View(
            self._bank,
            ground.image,
            under=under,
            counts=self._counts,
            noise=2 * ground.noise,
            over_rgb=over_rgb,
            over_alpha=over_alpha,
            soft_px=self._soft_px,
        )

    def _unexplained(self, stack: Stack) -> Bool[np.ndarray, "h w"] | None:
        painted = paint(self._bank, self._ground.canvas, stack.fits)
        distance = np.abs(self._ground.image - painted).sum(axis=-1)
        threshold = 2 * max(FOREGROUND_DISTANCE, 3 * self._ground.noise)
        wrong = ndimage.binary_opening((distance > threshold) & self._counts)
        labels, num = ndimage.label(ndimage.binary_dilation(wrong, iterations=2))
        if not num:
            return None
        sizes = np.bincount((labels * wrong).ravel())[1:]
        if sizes.max() < MIN_OBJECT_PX:
            return None
        return wrong & (labels == 1 + sizes.argmax())

    def _add(self, stack: Stack, poses: list[Pose], *, places: set[int]) -> Stack:
        """Return the stack with one object more, at the place that explains the part best."""
        stacks = []
        for place in places:
            view = self._view(stack.fits, place)
            fits = sorted((view.fit(pose) for pose in poses), key=lambda fit: fit.error)
            slid = sorted((view.slide(fit) for fit in fits[:10]), key=lambda fit: fit.error)
            fit = min(
                (view.improve(fit, self._ground.styles) for fit in slid[:3]),
                key=lambda fit: fit.error,
            )
            stacks.append(Stack((*stack.fits[:place], fit, *stack.fits[place:]), fit.error))
        return min(stacks, key=lambda each: each.error)

    def _refine(self, stack: Stack) -> Stack:
        """Fit every object again, now that the others are known."""
        for place in range(len(stack.fits)):
            others = stack.fits[:place] + stack.fits[place + 1 :]
            view = self._view(others, place)
            fit = view.improve(view.fit(stack.fits[place].pose), self._ground.styles)
            if fit.error < stack.error:
                stack = Stack((*others[:place], fit, *others[place:]), fit.error)
        return stack

    def _prune(self, stack: Stack, min_gain: float) -> Stack:
        """Drop objects that the others make needless, hidden ones above all."""
        for place in reversed(range(len(stack.fits))):
            if len(stack.fits) == 1:
                break
            others = stack.fits[:place] + stack.fits[place + 1 :]
            error = self._view(others[1:], 0).fit(others[0].pose).error
            if error - stack.error < min_gain:
                stack = self._refine(Stack(others, error))
        return stack

    def _reorder(self, stack: Stack) -> Stack:
        """Swap neighbours where the picture fits better the other way round."""
        for place in range(len(stack.fits) - 1):
            fits = list(stack.fits)
            fits[place], fits[place + 1] = fits[place + 1], fits[place]
            others = tuple(fits[:place] + fits[place + 1 :])
            error = self._view(others, place).fit(fits[place].pose).error
            if error < stack.error:
                stack = self._refine(Stack(tuple(fits), error))
        return stack


def paint(
    bank: TemplateBank, canvas: Float[np.ndarray, "h w 3"], fits: tuple[Fit, ...]
) -> Float[np.ndarray, "h w 3"]:
    """Return a canvas with objects painted on it, the first one first.

    Args:
        bank: What objects look like.
        canvas: What is behind them; not changed.
        fits: From back to front.
    """
    painted = canvas.copy()
    for fit in fits:
        stamp: Stamp = bank.stamp(fit.pose.look, fit.pose.detail)
        height, width = stamp.alpha.shape
        top, left = fit.pose.top - STAMP_PAD_PX, fit.pose.left - STAMP_PAD_PX
        y0, x0 = max(0, -top), max(0, -left)
        y1, x1 = min(height, canvas.shape[0] - top), min(width, canvas.shape[1] - left)
        here = (slice(top + y0, top + y1), slice(left + x0, left + x1))
        there = (slice(y0, y1), slice(x0, x1))
        colors = np.moveaxis(stamp.rgb[:, *there], 0, -1)
        painted[here] = colors + (1 - stamp.alpha[there])[..., None] * painted[here]
    return painted
