"""Painters that need no model, and whose scores are known before: they judge the judgement.

blank    an empty canvas: nothing is right
random   a scene that knows nothing of the words: what chance gets right
oracle   the renderer, told what is asked: as much as this judge can ever grant
"""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from core.seeding import numpy_generator
from evaluation.predicates import Item
from scenes.compose import Looks, render, sample_scene, scene_showing
from scenes.effects import backdrop
from scenes.sprites import SpriteSheet


def blank(_item: Item, _seed: int, *, sheet: SpriteSheet) -> Image.Image:  # noqa: ARG001
    """Return a backdrop with nothing before it.

    Args:
        _item: Not listened to.
        _seed: Not needed.
        sheet: Not needed.
    """
    canvas = backdrop("sky", "natural")
    return Image.fromarray((canvas * 255).round().astype(np.uint8))


def random(_item: Item, seed: int, *, sheet: SpriteSheet) -> Image.Image:
    """Return any scene.

    Args:
        _item: Not listened to.
        seed: Which one.
        sheet: Where sprites come from.
    """
    return Image.fromarray(render(sample_scene(seed, split="seen", sheet=sheet), sheet))


def oracle(item: Item, seed: int, *, sheet: SpriteSheet) -> Image.Image:
    """Return a rendered scene that shows what is asked.

    Args:
        item: What is asked for; a position is the first object's to the second.
        seed: Decides all that is not asked for.
        sheet: Where sprites come from.
    """
    looks: Looks = [(each.noun, each.color) for each in item.include for _ in range(each.count)]
    position = item.include[0].position
    rng = numpy_generator(seed, "oracle")
    scene = scene_showing(looks, rng, relation=position and position[0], sheet=sheet)
    return Image.fromarray(render(scene, sheet))


BASELINES: Mapping[str, Callable[..., Image.Image]] = {
    "blank": blank,
    "random": random,
    "oracle": oracle,
}
