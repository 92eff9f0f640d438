"""The judge: reads back what a picture shows, by painting what it could be and comparing.

It knows the world's objects, but nothing of who painted the picture. The steps are: backdrop ->
parts that stand out -> the object that fits each part best -> where none does, two that overlap ->
where they do not either, all of it once more through a blur -> one style and detail for all. What
fits badly, or two things fit equally well, stays unsure.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from core.errors import InputError
from scenes.compose import Box
from scenes.judge_background import (
    MIN_OBJECT_PX,
    Ground,
    around,
    components,
    find_ground,
    foreground,
)
from scenes.judge_fit import GOOD_UNEXPLAINED, Fit, View, coarse_poses
from scenes.judge_points import PointBank
from scenes.judge_several import StackFinder, paint
from scenes.judge_templates import TemplateBank
from scenes.readings import Reading, SeenObject, box_iou, look_word, size_word
from scenes.sprites import SpriteSheet
from scenes.vocabulary import CANVAS_PX, STYLES

# Above this share of unexplained error an object has no name: its best look is hardly better than
# none. Painted things are rough; a person names them long before they fit like a print.
MAX_UNEXPLAINED = 0.85
# Up to this share an object is understood well enough to speak for crumbs beside it, and for style.
WELL_EXPLAINED = 0.42
# Several objects must explain a part this much better than one alone.
MIN_STACK_GAIN = 0.7
# A style that its backdrop speaks against must explain this much better.
OTHER_STYLE_GAIN = 0.8
# Below this share nothing better is looked for.
CLEAR_UNEXPLAINED = 0.05
# A part of which no more than this share is left belongs to an object already found.
EXPLAINED_CRUMB = 0.5
# The next colour must be worse by this share of the object's area.
MIN_COLOR_MARGIN = 0.02
NUM_CANDIDATES = 14
# What fits badly is looked at again through half-closed eyes: a blur of so many pixels. Blurred
# noise is a grey thing: who saw nothing with open eyes does not look, and a blur must show more.
SOFT_PX = 1.5
NOTHING_UNEXPLAINED = 0.95
MAX_SOFT_UNEXPLAINED = 0.75
# Boxes of two things that touch share no more; what shares more in a blur is one thing seen twice.
MAX_TOUCHING_IOU = 0.25
VIEW_PAD_PX = 8


@dataclass(frozen=True, slots=True)
class Found:
    """An explained part: its fit, what it left unexplained, its order, how sure its colour is."""

    fit: Fit
    unexplained: float
    z: int
    color_margin: float


class SceneJudge:
    """Reads scenes by analysis through synthesis.

    Args:
        sheet: Where the objects' looks come from.
    """

    def __init__(self, sheet: SpriteSheet) -> None:
        self._bank = TemplateBank(sheet)
        self._points = PointBank(sheet, self._bank)

    def read(self, image: UInt8[np.ndarray, "h w 3"]) -> Reading:
        """Say what a picture shows.

        Args:
            image: RGB, CANVAS_PX square.

        Raises:
            InputError: If the picture has another size.
        """
        if image.shape != (CANVAS_PX, CANVAS_PX, 3):
            raise InputError(
                f"The judge reads RGB pictures of {CANVAS_PX} x {CANVAS_PX} pixels, not an array "
                f"of shape {image.shape}: resize the picture first.",
                param="image",
            )
        ground = find_ground(image)
        found = self._find_all(ground)
        style, detail = _vote(found)
        return Reading(
            objects=tuple(self._seen(each) for each in found),
            background=ground.background,
            style=style,
            detail=detail,
        )

    def _find_all(self, ground: Ground) -> list[Found]:
        distance = np.abs(ground.image - ground.canvas).sum(axis=-1)
        labels = components(foreground(ground, distance, ignore_shadows=False))
        tight = foreground(ground, distance, ignore_shadows=True)
        found: list[Found] = []
        sizes = np.bincount(labels.ravel())
        for label in sorted(range(1, len(sizes)), key=lambda each: -sizes[each]):
            part = labels == label
            if found and self._is_explained(ground, part, found):
                continue  # a crumb of an object whose middle looks like the backdrop
            counts = around(part, VIEW_PAD_PX) & (part | (labels == 0))
            found += self._explain(ground, counts, [part, part & tight, _without_rim(part)])
        return found

    def _is_explained(
        self, ground: Ground, part: Bool[np.ndarray, "h w"], found: list[Found]
    ) -> bool:
        fits = tuple(each.fit for each in found if each.unexplained <= WELL_EXPLAINED)
        painted = paint(self._bank, ground.canvas, fits)
        left = np.abs(ground.image - painted)[part].sum()
        return bool(left < EXPLAINED_CRUMB * np.abs(ground.image - ground.canvas)[part].sum())

    def _explain(
        self,
        ground: Ground,
        counts: Bool[np.ndarray, "h w"],
        masks: list[Bool[np.ndarray, "h w"]],
    ) -> list[Found]:
        """Return the object, or the objects, that a part of the picture shows."""
        found = self._explain_at(ground, counts, masks, soft_px=0.0)
        if WELL_EXPLAINED < found[0].unexplained < NOTHING_UNEXPLAINED:
            softly = self._explain_at(ground, counts, masks, soft_px=SOFT_PX)
            if softly[0].unexplained <= MAX_SOFT_UNEXPLAINED and self._tells_more(softly, found):
                found = softly
        return found

    def _tells_more(self, softly: list[Found], found: list[Found]) -> bool:
        """Whether a blur names what had no name, or shows that what seemed one thing are several.

        That a thing is another one than it seemed is not for a blur to say.
        """
        if len(softly) <= len(found):
            return found[0].unexplained > MAX_UNEXPLAINED
        boxes = [self._box(each) for each in softly]
        return all(box_iou(a, b) <= MAX_TOUCHING_IOU for a, b in combinations(boxes, 2))

    def _explain_at(
        self,
        ground: Ground,
        counts: Bool[np.ndarray, "h w"],
        masks: list[Bool[np.ndarray, "h w"]],
        *,
        soft_px: float,
    ) -> list[Found]:
        view = View(
            self._bank,
            ground.image,
            under=ground.canvas,
            counts=counts,
            noise=2 * ground.noise,
            soft_px=soft_px,
        )
        whole = max(view.empty_error, 1.0)
        fit = self._fit(view, ground.image, masks, ground.styles)
        if fit.error > GOOD_UNEXPLAINED * whole:
            finder = StackFinder(self._bank, self._points, ground, counts, soft_px=soft_px)
            stacks = [finder.split(cores) for cores in map(_cores, masks[1:]) if len(cores) > 1]
            if not stacks or min(each.error for each in stacks) > GOOD_UNEXPLAINED * whole:
                stacks.append(finder.find())
            stack = min(stacks, key=lambda each: each.error)
            if len(stack.fits) > 1 and stack.error < MIN_STACK_GAIN * fit.error:
                return [
                    Found(each, stack.error / whole, z, finder.color_margin(stack, z))
                    for z, each in enumerate(stack.fits)
                ]
            if stack.fits:
                fit = min(fit, stack.fits[0], key=lambda each: each.error)
        if fit.error > GOOD_UNEXPLAINED * whole and len(ground.styles) < len(STYLES):
            other = self._fit(view, ground.image, masks, STYLES)
            if other.error < OTHER_STYLE_GAIN * fit.error:
                fit = other
        return [Found(fit, fit.error / whole, 0, view.color_margin(fit))]

    def _fit(
        self,
        view: View,
        image: Float[np.ndarray, "h w 3"],
        masks: list[Bool[np.ndarray, "h w"]],
        styles: tuple[str, ...],
    ) -> Fit:
        poses = [
            pose
            for mask in masks
            if mask.sum() >= MIN_OBJECT_PX
            for pose in coarse_poses(self._bank, image, mask, styles, num=NUM_CANDIDATES)
        ]
        fits = sorted({view.fit(pose) for pose in poses}, key=lambda fit: fit.error)
        slid = sorted((view.slide(fit) for fit in fits[:6]), key=lambda fit: fit.error)
        best: Fit | None = None
        for start in slid[:3]:
            fit = view.improve(start, styles)
            if best is None or fit.error < best.error:
                best = fit
            if best.error < CLEAR_UNEXPLAINED * view.empty_error:
                break
        assert best is not None
        return best

    def _seen(self, found: Found) -> SeenObject:
        pose = found.fit.pose
        sure = found.unexplained <= MAX_UNEXPLAINED
        return SeenObject(
            noun=pose.look.noun if sure else None,
            color=look_word(pose.look.noun, pose.look.color) if sure else None,
            color_is_sure=sure and found.color_margin >= MIN_COLOR_MARGIN,
            size=size_word(pose.look.side_px) if sure else None,
            box=self._box(found),
            z=found.z,
            unexplained=found.unexplained,
        )

    def _box(self, found: Found) -> Box:
        pose = found.fit.pose
        stamp = self._bank.stamp(pose.look, pose.detail)
        return Box(
            x0=max(pose.left, 0) / CANVAS_PX,
            y0=max(pose.top, 0) / CANVAS_PX,
            x1=min(pose.left + stamp.width, CANVAS_PX) / CANVAS_PX,
            y1=min(pose.top + stamp.height, CANVAS_PX) / CANVAS_PX,
        )


def _cores(mask: Bool[np.ndarray, "h w"]) -> list[Bool[np.ndarray, "h w"]]:
    labels, num = ndimage.label(mask)
    cores = [labels == label for label in range(1, num + 1)]
    return [core for core in cores if core.sum() >= MIN_OBJECT_PX]


def _without_rim(part: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return a part without the two pixels that a dark outline takes."""
    return ndimage.binary_erosion(ndimage.binary_fill_holes(part), iterations=2)


def _vote(found: list[Found]) -> tuple[str | None, str | None]:
    """Return the style and the detail that the surest objects have, by what they explain.

    Things that are understood well speak; where there are none, the one that is understood best
    does, if it has a name.
    """
    styles: defaultdict[str, float] = defaultdict(float)
    details: defaultdict[str, float] = defaultdict(float)
    best = min((each.unexplained for each in found), default=1.0)
    limit = min(MAX_UNEXPLAINED, max(WELL_EXPLAINED, best))
    for each in found:
        if each.unexplained <= limit:
            pose = each.fit.pose
            trust = 1 - each.unexplained
            styles[pose.look.style] += trust
            details[pose.detail] += trust
    if not styles:
        return None, None
    return max(styles, key=styles.__getitem__), max(details, key=details.__getitem__)
