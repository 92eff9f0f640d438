"""Prompts in the world's own words, with what satisfies them, for GenEval's six categories."""

from collections.abc import Iterator

from core.errors import UnknownNameError
from core.seeding import numpy_generator
from evaluation.predicates import TAGS, Include, Item
from scenes.captions import COUNT_WORDS, RELATION_WORDINGS
from scenes.vocabulary import (
    COLORS,
    NOUNS,
    RELATIONS,
    is_held_out_color,
    is_held_out_relation,
)

# Combinations are held out in these categories only; elsewhere there is nothing unseen.
TAGS_WITH_UNSEEN = ("colors", "position", "color_attr")


def items(tag: str, count: int, *, is_unseen: bool, seed: int = 0) -> list[Item]:
    """Return the prompts of a category.

    Args:
        tag: One of TAGS.
        count: How many.
        is_unseen: Ask for held-out combinations only, or for none.
        seed: Another seed gives other prompts.

    Raises:
        UnknownNameError: If the category is unknown, or holds nothing out.
    """
    known = TAGS_WITH_UNSEEN if is_unseen else TAGS
    if tag not in known:
        raise UnknownNameError("category", tag, known, param="tag")
    found = []
    for candidate in _candidates(tag, seed):
        if candidate.is_unseen == is_unseen:
            found.append(candidate)
            if len(found) == count:
                break
    return found


def _candidates(tag: str, seed: int) -> Iterator[Item]:
    rng = numpy_generator(seed, "prompts", tag)
    while True:
        first, second = (str(noun) for noun in rng.choice(list(NOUNS), size=2, replace=False))
        color, other_color = (str(c) for c in rng.choice(list(COLORS), size=2, replace=False))
        relation = str(rng.choice([each for each in RELATIONS if each != "in front of"]))
        count = int(rng.integers(2, 5))
        yield _item(tag, first, second, color, other_color, relation, count)


def _item(  # noqa: PLR0917 - one draw, all of it
    tag: str, first: str, second: str, color: str, other_color: str, relation: str, count: int
) -> Item:
    prompts = {
        "single_object": _a(first),
        "two_object": f"{_a(first)} and {_a(second)}",
        "counting": f"{COUNT_WORDS[count]} {NOUNS[first].plural}",
        "colors": _a(f"{color} {first}"),
        "position": f"{_a(first)} {RELATION_WORDINGS[relation][0]} {_a(second)}",
        "color_attr": f"{_a(f'{color} {first}')} and {_a(f'{other_color} {second}')}",
    }
    includes = {
        "single_object": (Include(noun=first),),
        "two_object": (Include(noun=first), Include(noun=second)),
        "counting": (Include(noun=first, count=count),),
        "colors": (Include(noun=first, color=color),),
        "position": (Include(noun=first, position=(relation, 1)), Include(noun=second)),
        "color_attr": (
            Include(noun=first, color=color),
            Include(noun=second, color=other_color),
        ),
    }
    unseen = {
        "colors": is_held_out_color(first, color),
        "position": is_held_out_relation(first, relation, second),
        "color_attr": is_held_out_color(first, color) or is_held_out_color(second, other_color),
    }
    return Item(
        tag=tag, prompt=prompts[tag], include=includes[tag], is_unseen=unseen.get(tag, False)
    )


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"
