"""GenEval's questions, asked of a judge's reading.

An item is GenEval metadata: a tag, a prompt, and what the picture must include: classes with a
count, perhaps a colour, perhaps a position relative to another included class.

Source:
    Ghosh et al., GenEval, arXiv 2310.11513, section 3. Differs: our world's judge in place of a
    detector. As there, a picture may show more than was asked for, except where it must count;
    `shows_nothing_else` is the stricter question beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scenes.readings import Reading, SeenObject

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@dataclass(frozen=True, kw_only=True, slots=True)
class Include:
    """One class that a picture must show.

    Attributes:
        noun: The class.
        count: How many at least; in the category "counting", exactly.
        color: Colour of each; None if any will do.
        position: (relation, index of the other included class); None if anywhere.
    """

    noun: str
    count: int = 1
    color: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One prompt and what satisfies it.

    Attributes:
        tag: One of TAGS.
        prompt: The words.
        include: What must be there.
        is_unseen: Whether training never showed this combination.
    """

    tag: str
    prompt: str
    include: tuple[Include, ...]
    is_unseen: bool


def satisfies(reading: Reading, item: Item) -> bool:
    """Return whether a picture shows what an item asks for.

    Args:
        reading: What the judge saw. What it is unsure of counts as not shown.
        item: What was asked for.
    """
    groups = [_matching(reading.objects, wanted) for wanted in item.include]
    for group, wanted in zip(groups, item.include, strict=True):
        if len(group) < wanted.count or (item.tag == "counting" and len(group) > wanted.count):
            return False
    return all(
        wanted.position is None
        or wanted.position[0] in relations(groups[index][0], groups[wanted.position[1]][0])
        for index, wanted in enumerate(item.include)
    )


def shows_nothing_else(reading: Reading, item: Item) -> bool:
    """Return whether as many objects were seen as an item asks for, named or not.

    Args:
        reading: What the judge saw.
        item: What was asked for.
    """
    return len(reading.objects) == sum(wanted.count for wanted in item.include)


def relations(one: SeenObject, other: SeenObject) -> set[str]:
    """Return how one object stands to another, as GenEval decides it.

    Along each axis the offset of the centres is shortened by a tenth of the summed sides; what is
    left, normalised, must exceed one half.

    Args:
        one: The object spoken of.
        other: What it is compared with.
    """
    offsets = []
    for low, high in (("x0", "x1"), ("y0", "y1")):
        ends = [(getattr(each.box, low), getattr(each.box, high)) for each in (one, other)]
        offset = (sum(ends[0]) - sum(ends[1])) / 2
        slack = 0.1 * sum(end[1] - end[0] for end in ends)
        offsets.append(max(abs(offset) - slack, 0.0) * (1 if offset > 0 else -1))
    length = (offsets[0] ** 2 + offsets[1] ** 2) ** 0.5
    if length == 0:
        return set()
    dx, dy = (offset / length for offset in offsets)
    named = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in named.items() if holds}


def _matching(seen: Sequence[SeenObject], wanted: Include) -> list[SeenObject]:
    """Return the objects that fit a wanted class, the surest first."""
    matching = [
        thing
        for thing in seen
        if thing.noun == wanted.noun
        and (wanted.color is None or (thing.color == wanted.color and thing.color_is_sure))
    ]
    return sorted(matching, key=lambda thing: thing.unexplained)
