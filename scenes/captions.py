"""What a scene is called: captions in several wordings, at three levels.

`full` says all that the writer chose to mention, `high` names content, topic and relations, `low`
names style, details and colours. Region phrases do the same for one object.
"""

from typing import Literal

import numpy as np

from scenes.compose import Scene, SceneObject
from scenes.vocabulary import NOUNS

Level = Literal["full", "high", "low"]

COUNT_WORDS = {2: "two", 3: "three", 4: "four"}

RELATION_WORDINGS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "in front of": ("in front of",),
}

PLACE_WORDINGS = {
    "left": ("on the left", "at the left"),
    "right": ("on the right", "at the right"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "top left corner": ("in the top left corner", "at the top left"),
    "top right corner": ("in the top right corner", "at the top right"),
    "bottom left corner": ("in the bottom left corner", "at the bottom left"),
    "bottom right corner": ("in the bottom right corner", "at the bottom right"),
    "centre": ("in the centre", "in the middle"),
}

BACKGROUND_WORDINGS = {
    "gray": ("on a gray background", "against a gray wall"),
    "sky": ("on a sky background", "on a sky blue background"),
    "mint": ("on a mint background", "on mint"),
    "sand": ("on a sand background", "on sand"),
    "lilac": ("on a lilac background", "on lilac"),
    "night": ("on a night background", "at night"),
    "sunset": ("on a sunset background", "at sunset"),
    "ocean": ("on an ocean background", "on the ocean"),
}

STYLE_WORDINGS = {
    "natural": ("natural", "natural style"),
    "pixel art": ("pixel art", "in pixel art style"),
    "watercolor": ("watercolor", "in watercolor"),
    "neon": ("neon", "in neon style"),
}

DETAIL_WORDINGS = {
    "plain": ("", "plain"),
    "soft shadow": ("soft shadow", "with a soft shadow"),
    "dark outline": ("dark outline", "with a dark outline"),
}


def caption(scene: Scene, level: Level, rng: np.random.Generator) -> str:
    """Return one wording of a scene.

    What a full caption leaves out (a natural style, a background) is left out at random, so a model
    learns to choose it freely; colours, relations, places and counts are always said.

    Args:
        scene: The truth.
        level: "full", "high" or "low".
        rng: Chooses the wording; equal generators give equal captions.
    """
    if level == "low":
        return _low(scene, rng)
    with_low = level == "full"
    parts = [_content(scene, rng, with_low=with_low)]
    if rng.random() < 0.7:
        parts[0] += f" {_pick(BACKGROUND_WORDINGS[scene.background], rng)}"
    if with_low:
        parts += _style_and_detail(scene, rng)
    lead = str(rng.choice(["", "", "", "a picture of ", "a photo of "]))
    return lead + ", ".join(part for part in parts if part)


def region_phrase(thing: SceneObject, level: Level, rng: np.random.Generator) -> str:
    """Return the words of one object alone.

    Args:
        thing: The object.
        level: "high" names it, "low" tells its looks (may be empty), "full" does both.
        rng: Chooses the wording.
    """
    if level == "low":
        return " ".join(_adjectives(thing, rng))
    return _with_article(_named(thing, rng, with_low=level == "full"))


def negative(noun: str) -> str:
    """Return the words that ask for the absence of a noun, for a negative prompt.

    Args:
        noun: A key of NOUNS.
    """
    return NOUNS[noun].plural


def _content(scene: Scene, rng: np.random.Generator, *, with_low: bool) -> str:
    if scene.kind == "counting":
        thing = scene.objects[0]
        words = [COUNT_WORDS[len(scene.objects)]]
        if with_low and thing.color:
            words.append(thing.color)
        return " ".join([*words, NOUNS[thing.noun].plural])
    names = [_with_article(_named(thing, rng, with_low=with_low)) for thing in scene.objects]
    if scene.relation is not None:
        return f"{names[0]} {_pick(RELATION_WORDINGS[scene.relation], rng)} {names[1]}"
    if scene.place is not None:
        return f"{names[0]} {_pick(PLACE_WORDINGS[scene.place], rng)}"
    names = [names[index] for index in rng.permutation(len(names))]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _low(scene: Scene, rng: np.random.Generator) -> str:
    colors = [f"{'the ' + thing.noun} is {thing.color}" for thing in scene.objects if thing.color]
    if scene.kind == "counting":
        colors = [f"all {scene.objects[0].color}"] if scene.objects[0].color else []
    style = _pick(STYLE_WORDINGS[scene.style], rng)
    detail = _pick(DETAIL_WORDINGS[scene.detail], rng)
    return ", ".join(part for part in [style, detail, *colors] if part)


def _style_and_detail(scene: Scene, rng: np.random.Generator) -> list[str]:
    says_style = scene.style != "natural" or rng.random() < 0.4
    says_detail = scene.detail != "plain" and rng.random() < 0.8
    parts = [
        _pick(STYLE_WORDINGS[scene.style], rng) if says_style else "",
        _pick(DETAIL_WORDINGS[scene.detail], rng) if says_detail else "",
    ]
    return parts if rng.random() < 0.7 else parts[::-1]


def _named(thing: SceneObject, rng: np.random.Generator, *, with_low: bool) -> str:
    return " ".join([*(_adjectives(thing, rng) if with_low else []), thing.noun])


def _adjectives(thing: SceneObject, rng: np.random.Generator) -> list[str]:
    size = [thing.size] if rng.random() < 0.3 else []
    return [*size, thing.color] if thing.color else size


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def _pick(wordings: tuple[str, ...], rng: np.random.Generator) -> str:
    return wordings[int(rng.integers(len(wordings)))]
