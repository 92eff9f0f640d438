"""Scenes: what stands where, drawn from a seed, and painted with exact truth.

`sample_scene` decides, `render` paints. Both are deterministic. The same seed in two splits gives
unrelated scenes, so test pictures never stand in the training set.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from core.errors import InputError
from core.seeding import numpy_generator
from scenes.effects import add_outline, add_shadow, backdrop, paste
from scenes.sprites import Sprite, SpriteSheet
from scenes.visibility import is_visible
from scenes.vocabulary import (
    BACKGROUNDS,
    CANVAS_PX,
    COLORS,
    DETAILS,
    NOUNS,
    PLACES,
    RELATIONS,
    SIZES_PX,
    STYLES,
    is_held_out_color,
    is_held_out_relation,
)

Split = Literal["train", "seen", "unseen"]
Kind = Literal["single", "place", "colors", "two", "relation", "counting", "several"]

# How often training meets each kind of scene.
KIND_SHARES: dict[Kind, float] = {
    "single": 0.18,
    "place": 0.08,
    "colors": 0.12,
    "two": 0.16,
    "relation": 0.30,
    "counting": 0.06,
    "several": 0.10,
}

MARGIN_PX = 3
GAP_PX = 4
# What stands in front covers at least this share of what is behind.
MIN_HIDDEN_SHARE = 0.05


Looks = list[tuple[str, str | None]]
"""Nouns, each with a colour or None for its own look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """An axis-aligned box in fractions of the canvas, 0..1, x to the right and y down."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneObject:
    """One object and its true place.

    Attributes:
        noun: A key of NOUNS.
        color: A key of COLORS, or None for its own look.
        size: A key of SIZES_PX.
        side_px: Longer side in pixels.
        box: Its true box, overlapped parts included.
        z: Painting order; higher stands in front.
    """

    noun: str
    color: str | None
    size: str
    side_px: int
    box: Box
    z: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A picture's whole truth.

    Attributes:
        kind: What the scene was made to show.
        objects: In the order a caption names them.
        background: A key of BACKGROUNDS.
        style: One of STYLES.
        detail: One of DETAILS.
        relation: How objects[0] stands to objects[1]; None unless the kind is "relation".
        place: Where objects[0] stands; None unless the kind is "place".
    """

    kind: Kind
    objects: tuple[SceneObject, ...]
    background: str
    style: str
    detail: str
    relation: str | None = None
    place: str | None = None


def sample_scene(seed: int, *, split: Split, sheet: SpriteSheet, kind: Kind | None = None) -> Scene:
    """Return the scene of a seed.

    Args:
        seed: 0..2**63 - 1.
        split: "train" and "seen" hold no held-out combination, "unseen" always holds one; each
            split has streams of its own.
        sheet: Where sprites come from; their true sizes decide the boxes.
        kind: Draw only this kind; by KIND_SHARES when None. A kind without colours or relations
            has nothing to hold out, so "unseen" refuses it.

    Raises:
        InputError: If the kind has no unseen combinations.
    """
    if split == "unseen" and kind in {"single", "place", "counting", "two"}:
        raise InputError(
            f"Scenes of kind {kind!r} hold nothing out; use 'colors', 'relation' or 'several'.",
            param="kind",
        )
    rng = numpy_generator(seed, split, "scene")
    chosen = kind or _draw_kind(rng, split)
    while True:
        scene = _try_scene(rng, chosen, sheet)
        if scene is not None and holds_unseen(scene) == (split == "unseen"):
            return scene


def scene_showing(
    looks: Looks, rng: np.random.Generator, *, relation: str | None = None, sheet: SpriteSheet
) -> Scene:
    """Return a scene of given things.

    Args:
        looks: What it shows, up to four things.
        rng: Decides all else.
        relation: One of RELATIONS, how the first stands to the second; None if they stand apart.
        sheet: Where sprites come from.
    """
    kind: Kind = "relation" if relation else "single" if len(looks) == 1 else "several"
    while True:
        scene = _try_scene(rng, kind, sheet, looks=looks, relation=relation)
        if scene is not None:
            return scene


def render(scene: Scene, sheet: SpriteSheet) -> UInt8[np.ndarray, "h w 3"]:
    """Return the painted scene, CANVAS_PX square.

    Args:
        scene: What to paint.
        sheet: Where sprites come from.
    """
    canvas = backdrop(scene.background, scene.style).copy()
    for thing in sorted(scene.objects, key=lambda each: each.z):
        sprite = sheet.sprite(thing.noun, thing.color, thing.side_px, scene.style)
        left, top = round(thing.box.x0 * CANVAS_PX), round(thing.box.y0 * CANVAS_PX)
        if scene.detail == "soft shadow":
            add_shadow(canvas, sprite[..., 3], left, top)
        elif scene.detail == "dark outline":
            add_outline(canvas, sprite[..., 3], left, top)
        paste(canvas, sprite, left, top)
    return (canvas * 255).round().astype(np.uint8)


def holds_unseen(scene: Scene) -> bool:
    """Return whether the scene shows a combination that training never shows."""
    if any(is_held_out_color(thing.noun, thing.color) for thing in scene.objects):
        return True
    if scene.relation is None:
        return False
    first, second = scene.objects[:2]
    return is_held_out_relation(first.noun, scene.relation, second.noun)


def _draw_kind(rng: np.random.Generator, split: Split) -> Kind:
    kinds: list[Kind] = list(KIND_SHARES)
    if split == "unseen":
        kinds = ["colors", "relation", "several"]
    shares = np.array([KIND_SHARES[kind] for kind in kinds])
    return kinds[rng.choice(len(kinds), p=shares / shares.sum())]


def _try_scene(
    rng: np.random.Generator,
    kind: Kind,
    sheet: SpriteSheet,
    *,
    looks: Looks | None = None,
    relation: str | None = None,
) -> Scene | None:
    """Return one candidate, or None if its objects do not fit or cannot be told from behind."""
    background = str(rng.choice(list(BACKGROUNDS)))
    style = str(rng.choice(STYLES, p=[0.4, 0.2, 0.2, 0.2]))
    detail = str(rng.choice(DETAILS, p=[0.5, 0.25, 0.25]))
    looks = looks or _draw_looks(rng, kind)
    if not all(is_visible(noun, color, background, style, sheet) for noun, color in looks):
        return None
    sizes = _draw_sizes(rng, len(looks))
    sides = [int(rng.choice(SIZES_PX[size])) for size in sizes]
    sprites = [
        sheet.sprite(noun, color, side, style)
        for (noun, color), side in zip(looks, sides, strict=True)
    ]
    shapes = [(sprite.shape[1], sprite.shape[0]) for sprite in sprites]
    if kind == "relation":
        relation = relation or str(rng.choice(RELATIONS))
    place = str(rng.choice(list(PLACES))) if kind == "place" else None
    corners = _place(rng, shapes, relation, place)
    if corners is None:
        return None
    if relation == "in front of" and not _hides(sprites[:2], corners[:2]):
        return None
    objects = tuple(
        SceneObject(
            noun=noun,
            color=color,
            size=size,
            side_px=side,
            box=_box(corner, shape),
            z=len(looks) - index,
        )
        for index, ((noun, color), size, side, corner, shape) in enumerate(
            zip(looks, sizes, sides, corners, shapes, strict=True)
        )
    )
    return Scene(
        kind=kind,
        objects=objects,
        background=background,
        style=style,
        detail=detail,
        relation=relation,
        place=place,
    )


def _draw_looks(rng: np.random.Generator, kind: Kind) -> Looks:
    nouns = [str(noun) for noun in rng.permutation(list(NOUNS))]
    if kind == "counting":
        return [(nouns[0], _draw_color(rng, 0.5))] * int(rng.integers(2, 5))
    if kind in {"single", "place"}:
        return [(nouns[0], _draw_color(rng, 0.0 if kind == "single" else 0.5))]
    if kind == "colors":
        return [(nouns[0], _draw_color(rng, 1.0))]
    if kind == "two":
        return [(noun, None) for noun in nouns[:2]]
    num_objects = 2 if kind == "relation" else int(rng.integers(2, 5))
    share = 0.5 if kind == "relation" else 0.8
    return [(noun, _draw_color(rng, share)) for noun in nouns[:num_objects]]


def _draw_color(rng: np.random.Generator, share: float) -> str | None:
    return str(rng.choice(list(COLORS))) if rng.random() < share else None


def _draw_sizes(rng: np.random.Generator, num_objects: int) -> list[str]:
    names = {1: ["small", "medium", "large"], 2: ["small", "medium", "large"]}.get(
        num_objects, ["small", "medium"]
    )
    shares = [0.1, 0.4, 0.5] if num_objects <= 2 else [0.25, 0.75]
    return [str(size) for size in rng.choice(names, size=num_objects, p=shares)]


def _place(
    rng: np.random.Generator,
    shapes: list[tuple[int, int]],
    relation: str | None,
    place: str | None,
) -> list[tuple[int, int]] | None:
    """Return the top left corner of each object, or None when this draw does not fit."""
    if place is not None:
        return _at_place(rng, shapes[0], place)
    for _ in range(30):
        corners = [_anywhere(rng, shape) for shape in shapes]
        if relation == "in front of":
            corners[0] = _in_front(rng, shapes, corners[1])
        if _fits(shapes, corners, relation) and _relates(shapes, corners, relation):
            return corners
    return None


def _anywhere(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[int, int]:
    x, y = (int(rng.integers(MARGIN_PX, CANVAS_PX - MARGIN_PX - side + 1)) for side in shape)
    return x, y


def _at_place(
    rng: np.random.Generator, shape: tuple[int, int], place: str
) -> list[tuple[int, int]] | None:
    jitter = rng.integers(-5, 6, size=2)
    corner = [
        round(CANVAS_PX * PLACES[place][axis] - shape[axis] / 2 + jitter[axis]) for axis in range(2)
    ]
    low, high = MARGIN_PX, CANVAS_PX - MARGIN_PX
    x, y = (int(np.clip(corner[axis], low, high - shape[axis])) for axis in range(2))
    return [(x, y)]


def _in_front(
    rng: np.random.Generator, shapes: list[tuple[int, int]], behind: tuple[int, int]
) -> tuple[int, int]:
    """Return a corner for object 0 that covers part of object 1."""
    (width, height), (other_width, other_height) = shapes[:2]
    side = rng.choice([-1, 1])
    dx = side * rng.uniform(0.3, 0.45) * (width + other_width)
    dy = rng.uniform(0.0, 0.25) * (height + other_height)
    centre_x = behind[0] + other_width / 2 + dx
    centre_y = behind[1] + other_height / 2 + dy
    return round(centre_x - width / 2), round(centre_y - height / 2)


def _hides(sprites: list[Sprite], corners: list[tuple[int, int]]) -> bool:
    """Return whether the first sprite visibly covers a part of the second, not only its box."""
    solid = np.zeros((2, CANVAS_PX, CANVAS_PX), bool)
    for layer, sprite, (x, y) in zip(solid, sprites, corners, strict=True):
        layer[y : y + sprite.shape[0], x : x + sprite.shape[1]] = sprite[..., 3] > 0.5
    return bool(solid.all(axis=0).sum() >= MIN_HIDDEN_SHARE * solid[1].sum())


def _fits(
    shapes: list[tuple[int, int]], corners: list[tuple[int, int]], relation: str | None
) -> bool:
    low, high = MARGIN_PX, CANVAS_PX - MARGIN_PX
    for (x, y), (width, height) in zip(corners, shapes, strict=True):
        if x < low or y < low or x + width > high or y + height > high:
            return False
    if relation == "in front of":
        return True
    pairs = [(i, j) for i in range(len(shapes)) for j in range(i)]
    return all(_gap(shapes[i], corners[i], shapes[j], corners[j]) >= GAP_PX for i, j in pairs)


def _gap(
    shape: tuple[int, int],
    corner: tuple[int, int],
    other_shape: tuple[int, int],
    other_corner: tuple[int, int],
) -> int:
    """Return the empty pixels between two boxes along their freest axis; negative on overlap."""
    return max(
        max(
            corner[axis] - other_corner[axis] - other_shape[axis],
            other_corner[axis] - corner[axis] - shape[axis],
        )
        for axis in range(2)
    )


def _relates(
    shapes: list[tuple[int, int]], corners: list[tuple[int, int]], relation: str | None
) -> bool:
    """Return whether object 0 plainly stands in the relation: off along its axis, near across."""
    if relation is None or relation == "in front of":
        return True
    axis = 0 if relation in {"left of", "right of"} else 1
    offset = [
        (corners[0][a] + shapes[0][a] / 2) - (corners[1][a] + shapes[1][a] / 2) for a in range(2)
    ]
    sign = -1 if relation in {"left of", "above"} else 1
    return sign * offset[axis] > 0 and abs(offset[1 - axis]) <= 0.6 * abs(offset[axis])


def _box(corner: tuple[int, int], shape: tuple[int, int]) -> Box:
    (x, y), (width, height) = corner, shape
    return Box(
        x0=x / CANVAS_PX,
        y0=y / CANVAS_PX,
        x1=(x + width) / CANVAS_PX,
        y1=(y + height) / CANVAS_PX,
    )
