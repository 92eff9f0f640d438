"""Scenes whose places are known, as a prompt without places and a plan with them."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.seeding import numpy_generator
from llm_prompting.phrasing import full_phrase
from llm_prompting.plan import Box, PlannedObject, ScenePlan
from scenes.captions import (
    BACKGROUND_WORDINGS,
    PLACE_WORDINGS,
    STYLE_WORDINGS,
    region_phrase,
)
from scenes.compose import Scene, SceneObject, sample_scene
from scenes.sprites import SpriteSheet

FIRST_TEST_SEED = 1_000_000
"""Choices are made on seeds below, and figures are taken from here on."""

_PLACES = (
    ("top left corner", "top", "top right corner"),
    ("left", "centre", "right"),
    ("bottom left corner", "bottom", "bottom right corner"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionalItem:
    """One scene, and how it is asked for.

    Attributes:
        seed: Of its scene, and of the noise of every picture of it.
        scene: The truth.
        prompt: All that is to be seen, without places.
        plan: The same with places.
    """

    seed: int
    scene: Scene
    prompt: str
    plan: ScenePlan

    @property
    def located(self) -> str:
        """The prompt with each object's place in words."""
        things = [f"{phrase(thing)} {place_words(thing)}" for thing in self.scene.objects]
        return _whole(self.scene, f"{', '.join(things[:-1])} and {things[-1]}")

    @property
    def rewritten(self) -> str:
        """The prompt with places, and once more which colour belongs to what."""
        bound = [f"the {thing.noun} is {thing.color}" for thing in self.scene.objects]
        return ", ".join([self.located, *bound])


def regional_items(
    count: int, *, num_objects: int, first_seed: int, sheet: SpriteSheet
) -> list[RegionalItem]:
    """Return scenes of so many objects, each of another noun and another colour.

    Args:
        count: How many scenes.
        num_objects: Objects in each, 2..4.
        first_seed: Seeds count up from here.
        sheet: Where sprites come from.
    """
    found = _candidates(num_objects, first_seed, sheet)
    return [next(found) for _ in range(count)]


def phrase(thing: SceneObject) -> str:
    """Return what an object is called, colour included and size left out.

    Args:
        thing: The object.
    """
    return full_phrase(region_phrase(thing, "high", numpy_generator(0)), thing.color or "")


def place_words(thing: SceneObject) -> str:
    """Return where an object stands, in the world's words.

    Args:
        thing: The object.
    """
    x, y = (thing.box.x0 + thing.box.x1) / 2, (thing.box.y0 + thing.box.y1) / 2
    return PLACE_WORDINGS[_PLACES[min(int(3 * y), 2)][min(int(3 * x), 2)]][0]


def _candidates(num_objects: int, first_seed: int, sheet: SpriteSheet) -> Iterator[RegionalItem]:
    seed = first_seed
    while True:
        scene = sample_scene(seed, split="seen", sheet=sheet, kind="several")
        colors = {thing.color for thing in scene.objects}
        nouns = {thing.noun for thing in scene.objects}
        if None not in colors and len(colors) == len(nouns) == num_objects == len(scene.objects):
            yield _item(seed, scene)
        seed += 1


def _item(seed: int, scene: Scene) -> RegionalItem:
    things = [phrase(thing) for thing in scene.objects]
    prompt = _whole(scene, f"{', '.join(things[:-1])} and {things[-1]}")
    objects = tuple(
        PlannedObject(
            name=thing.noun,
            high=region_phrase(thing, "high", numpy_generator(0)),
            low=thing.color or "",
            box=Box(x0=thing.box.x0, y0=thing.box.y0, x1=thing.box.x1, y1=thing.box.y1),
        )
        for thing in scene.objects
    )
    plan = ScenePlan(
        prompt=prompt,
        content=f"{', '.join(things[:-1])} and {things[-1]}",
        background=BACKGROUND_WORDINGS[scene.background][0],
        objects=objects,
        style=STYLE_WORDINGS[scene.style][0],
    )
    return RegionalItem(seed=seed, scene=scene, prompt=prompt, plan=plan)


def _whole(scene: Scene, things: str) -> str:
    ground = BACKGROUND_WORDINGS[scene.background][0]
    return f"{things} {ground}, {STYLE_WORDINGS[scene.style][0]}"
