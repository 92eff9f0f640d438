"""Sentences of our own grammar, each with what a plan must show to satisfy it."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GENEVAL = Path(__file__).parents[1] / "evaluation" / "prompts" / "geneval_metadata.jsonl"

_NOUNS = (
    "apple", "banana", "cat", "dog", "car", "bicycle", "tree", "house", "star", "moon", "fish",
    "butterfly", "mushroom", "rocket", "frog", "bear", "penguin", "owl", "strawberry", "cake",
    "guitar", "elephant", "dragon", "wine glass", "teddy bear", "lighthouse", "samovar",
)  # fmt: skip
_PLURALS = {
    "fish": "fish",
    "butterfly": "butterflies",
    "strawberry": "strawberries",
    "wine glass": "wine glasses",
}
_COLORS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
_SIZES = ("small", "large", "tiny", "big", "medium-sized")
_MORE_LOOKS = ("fluffy", "wooden", "striped", "shiny", "old")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
_RELATIONS = {
    "left of": ("to the left of", "left of", "on the left side of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "underneath", "beneath"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
_PLACES = {
    (0, None): ("on the left", "on the left side of the picture"),
    (2, None): ("on the right",),
    (None, 0): ("at the top",),
    (None, 2): ("at the bottom of the image",),
    (1, 1): ("in the centre", "in the middle"),
    (0, 0): ("in the top left corner", "in the upper left corner"),
    (2, 0): ("in the top-right corner",),
    (0, 2): ("at the bottom left",),
    (2, 2): ("in the lower right corner",),
}
_STYLES = ("watercolor", "pixel art", "pencil sketch style", "in neon style", "natural")
_BACKGROUNDS = ("on a night sky background", "on a mint background", "in the forest", "at sunset")
_DETAILS = ("with a soft shadow", "with dark outlines")
_OPENINGS = ("", "", "a photo of ", "a picture of ", "a watercolor painting of ")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A prompt and its truth, in GenEval's form and a little more.

    Attributes:
        kind: Which task it belongs to.
        prompt: The sentence.
        include: Objects: "class", "count", "color", "position" [relation, index], "looks",
            "place" [column, row].
        negative: What must stand in the plan's negative; empty for nothing.
    """

    kind: str
    prompt: str
    include: tuple[dict[str, Any], ...] = field(default=())
    negative: str = ""


def geneval_sentences() -> list[Sentence]:
    """Return GenEval's 553 prompts."""
    rows = map(json.loads, GENEVAL.read_text("utf-8").splitlines())
    return [Sentence(row["tag"], row["prompt"], tuple(row["include"])) for row in rows]


def own_sentences(count: int, seed: int = 0) -> Iterator[Sentence]:
    """Draw sentences: one to four kinds of things, with counts, looks, relations and places.

    Args:
        count: How many sentences.
        seed: Equal seeds draw equal sentences.

    Yields:
        The sentences.
    """
    draw = random.Random(seed)  # noqa: S311 - sentences, not secrets
    makers = (_listed, _related, _chained, _placed, _depth)
    for index in range(count):
        yield makers[index % len(makers)](draw)


def _listed(draw: random.Random) -> Sentence:
    things = _things(draw, draw.randint(1, 4))
    phrases = [phrase for phrase, _ in things]
    last = f" and {phrases[-1]}" if len(phrases) > 1 else ""
    text = ", ".join(phrases[:-1]) + last if last else phrases[0]
    return _finished(draw, "listed", text, [truth for _, truth in things])


def _related(draw: random.Random) -> Sentence:
    (one, first), (other, second) = _things(draw, 2)
    relation = draw.choice(("left of", "right of", "above", "below"))
    first["position"] = [relation, 1]
    text = f"{one} {draw.choice(_RELATIONS[relation])} {other}"
    return _finished(draw, "related", text, [first, second])


def _chained(draw: random.Random) -> Sentence:
    things = _things(draw, 3, most=1)
    relations = [draw.choice(("left of", "right of", "above", "below")) for _ in range(2)]
    (one, first), (other, second), (last, third) = things
    first["position"] = [relations[0], 1]
    second["position"] = [relations[1], 2]
    words = [draw.choice(_RELATIONS[relation]) for relation in relations]
    text = f"{one} {words[0]} {other}, {other.replace('a ', 'the ', 1)} {words[1]} {last}"
    return _finished(draw, "chained", text.replace(", an ", ", the "), [first, second, third])


def _placed(draw: random.Random) -> Sentence:
    things = _things(draw, 2, most=1)
    ninths = [place for place in _PLACES if place[0] is not None or place[1] is not None]
    one, other = draw.sample(ninths, 2)
    clauses = []
    for (phrase, truth), place in zip(things, (one, other), strict=True):
        truth["place"] = list(place)
        where = draw.choice(_PLACES[place])
        clauses.append(f"{phrase} {where}" if draw.random() < 0.7 else f"{where} {phrase}")
    joined = ", ".join(clauses) if draw.random() < 0.5 else " and ".join(clauses)
    return _finished(draw, "placed", joined, [truth for _, truth in things])


def _depth(draw: random.Random) -> Sentence:
    (one, first), (other, second) = _things(draw, 2, most=1)
    relation = draw.choice(("in front of", "behind"))
    first["position"] = [relation, 1]
    return _finished(draw, "depth", f"{one} {relation} {other}", [first, second])


def _things(draw: random.Random, count: int, *, most: int = 4) -> list[tuple[str, dict[str, Any]]]:
    return [_thing(draw, noun, most) for noun in draw.sample(_NOUNS, count)]


def _thing(draw: random.Random, noun: str, most: int) -> tuple[str, dict[str, Any]]:
    number = draw.randint(1, most) if draw.random() < 0.4 else 1
    truth: dict[str, Any] = {"class": noun, "count": number}
    looks = []
    if draw.random() < 0.4:
        looks.append(draw.choice(_SIZES))
    if draw.random() < 0.3:
        looks.append(draw.choice(_MORE_LOOKS))
    truth["looks"] = list(looks)
    if draw.random() < 0.7:
        truth["color"] = draw.choice(_COLORS)
        looks.append(truth["color"])
    name = noun if number == 1 else _PLURALS.get(noun, noun + "s")
    words = " ".join([*looks, name])
    article = "an" if words[0] in "aeiou" else "a"
    return f"{article if number == 1 else _NUMBERS[number]} {words}", truth


def _finished(draw: random.Random, kind: str, text: str, include: list[dict[str, Any]]) -> Sentence:
    negative = ""
    opening = draw.choice(_OPENINGS)
    if draw.random() < 0.3:
        text = f"{text} {draw.choice(_BACKGROUNDS)}"
    if draw.random() < 0.3:
        text = f"{text}, {draw.choice(_DETAILS)}"
    if draw.random() < 0.4:
        text = f"{text}, {draw.choice(_STYLES)}"
    if draw.random() < 0.15:
        negative = "cats" if all(thing["class"] != "cat" for thing in include) else "people"
        text = f"{text}, no {negative}"
    return Sentence(kind, opening + text, tuple(include), negative)
