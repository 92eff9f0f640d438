"""The judge, judged: how well it reads what is known to be there, before it reads a model."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy import ndimage

from core.progress import track
from core.seeding import numpy_generator
from evaluation.intervals import Rate, wilson
from scenes.compose import Box, Scene, render, sample_scene
from scenes.readings import Judge, reads_exactly
from scenes.sprites import SpriteSheet
from scenes.vocabulary import CANVAS_PX, COLORS, NOUNS

Picture = UInt8[np.ndarray, "h w 3"]
Disturb = Callable[[Picture, np.random.Generator], Picture]


def judge_table(
    judge: Judge, sheet: SpriteSheet, *, num_scenes: int, seed: int = 0
) -> dict[str, Rate]:
    """Return how often a judge reads whole scenes exactly, and how often it accepts a wrong one.

    Args:
        judge: The judge.
        sheet: Where sprites come from.
        num_scenes: Scenes per row of the table.
        seed: First seed of the scenes, from the test split.

    Returns:
        Rates by row: "exact_<disturbance>", "abstains_<disturbance>", "false_accept_<control>",
        and the controls' total "false_accept".
    """
    scenes = [sample_scene(seed + index, split="seen", sheet=sheet) for index in range(num_scenes)]
    table: dict[str, Rate] = {}
    for name, disturb in DISTURBANCES.items():
        exact = unsure = 0
        for index, scene in enumerate(track(scenes, f"Judging: {name}", unit="scenes")):
            rng = numpy_generator(seed + index, "disturb", name)
            reading = judge.read(disturb(render(scene, sheet), rng))
            exact += reads_exactly(reading, scene)
            unsure += reading.abstains
        table[f"exact_{name}"] = wilson(exact, num_scenes)
        table[f"abstains_{name}"] = wilson(unsure, num_scenes)
    return table | _controls(judge, sheet, scenes, seed)


def _controls(judge: Judge, sheet: SpriteSheet, scenes: list[Scene], seed: int) -> dict[str, Rate]:
    """Paint a changed scene, and ask whether the judge takes it for the unchanged one."""
    table: dict[str, Rate] = {}
    total = accepted_total = 0
    for name, change in CONTROLS.items():
        accepted = tried = 0
        for index, scene in enumerate(track(scenes, f"Control: {name}", unit="scenes")):
            changed = change(scene, numpy_generator(seed + index, "control", name))
            if changed is not None:
                tried += 1
                accepted += reads_exactly(judge.read(render(changed, sheet)), scene)
        table[f"false_accept_{name}"] = wilson(accepted, tried)
        total, accepted_total = total + tried, accepted_total + accepted
    table["false_accept"] = wilson(accepted_total, total)
    return table


def _clean(picture: Picture, _rng: np.random.Generator) -> Picture:
    return picture


def _blur(picture: Picture, _rng: np.random.Generator) -> Picture:
    return ndimage.gaussian_filter(picture, sigma=(0.7, 0.7, 0))


def _noise(picture: Picture, rng: np.random.Generator) -> Picture:
    return _levels(picture + rng.normal(0, 8, picture.shape))


def _gain(picture: Picture, rng: np.random.Generator) -> Picture:
    return _levels(picture * rng.uniform(0.95, 1.05))


def _warp(picture: Picture, rng: np.random.Generator) -> Picture:
    coarse = rng.uniform(-1, 1, size=(2, 5, 5))
    shifts = [ndimage.zoom(axis, CANVAS_PX / 5, order=3) for axis in coarse]
    rows, columns = np.mgrid[:CANVAS_PX, :CANVAS_PX]
    places = [rows + shifts[0], columns + shifts[1]]
    bands = [
        ndimage.map_coordinates(picture[..., band].astype(float), places, order=1, mode="nearest")
        for band in range(3)
    ]
    return _levels(np.stack(bands, axis=-1))


def _jpeg(picture: Picture, _rng: np.random.Generator) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(file))


def _levels(values: np.ndarray) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


DISTURBANCES: dict[str, Disturb] = {
    "clean": _clean,
    "blur": _blur,
    "noise": _noise,
    "gain": _gain,
    "warp": _warp,
    "jpeg": _jpeg,
}


def _wrong_color(scene: Scene, rng: np.random.Generator) -> Scene | None:
    thing = scene.objects[0]
    others = [c for c in COLORS if c not in {thing.color, NOUNS[thing.noun].own_color}]
    return _with_first(scene, color=str(rng.choice(others)))


def _wrong_object(scene: Scene, rng: np.random.Generator) -> Scene | None:
    others = [noun for noun in NOUNS if noun != scene.objects[0].noun]
    return _with_first(scene, noun=str(rng.choice(others)))


def _missing(scene: Scene, _rng: np.random.Generator) -> Scene | None:
    return replace(scene, objects=scene.objects[1:]) if len(scene.objects) > 1 else None


def _extra(scene: Scene, rng: np.random.Generator) -> Scene | None:
    taken = scene.objects[0]
    for _ in range(50):
        x, y = (float(v) for v in rng.uniform(0.02, 0.7, size=2))
        box = replace(taken.box, x0=x, y0=y, x1=x + 0.27, y1=y + 0.27)
        if all(_apart(box, thing.box) for thing in scene.objects):
            added = replace(taken, side_px=34, size="small", box=box)
            return replace(scene, objects=(*scene.objects, added))
    return None


def _swapped_colors(scene: Scene, _rng: np.random.Generator) -> Scene | None:
    if len(scene.objects) < 2 or scene.objects[0].color == scene.objects[1].color:
        return None
    first, second, *rest = scene.objects
    swapped = (replace(first, color=second.color), replace(second, color=first.color), *rest)
    looks_same = all(
        (a.color or NOUNS[a.noun].own_color) == (b.color or NOUNS[b.noun].own_color)
        for a, b in zip(scene.objects, swapped, strict=True)
    )
    return None if looks_same else replace(scene, objects=swapped)


def _swapped_places(scene: Scene, _rng: np.random.Generator) -> Scene | None:
    if len(scene.objects) < 2 or scene.kind == "counting" or scene.relation == "in front of":
        return None
    first, second, *rest = scene.objects
    swapped = (replace(first, box=second.box), replace(second, box=first.box), *rest)
    return replace(scene, objects=swapped)


def _with_first(scene: Scene, *, noun: str | None = None, color: str | None = None) -> Scene:
    first = scene.objects[0]
    changed = replace(first, noun=noun or first.noun, color=color or first.color)
    return replace(scene, objects=(changed, *scene.objects[1:]))


def _apart(box: Box, other: Box) -> bool:
    gaps = [
        max(getattr(box, low) - getattr(other, high), getattr(other, low) - getattr(box, high))
        for low, high in (("x0", "x1"), ("y0", "y1"))
    ]
    return max(gaps) > 0.03


CONTROLS: dict[str, Callable[[Scene, np.random.Generator], Scene | None]] = {
    "wrong_color": _wrong_color,
    "wrong_object": _wrong_object,
    "missing": _missing,
    "extra": _extra,
    "swapped_colors": _swapped_colors,
    "swapped_places": _swapped_places,
}
