"""One phrase from two: what a thing is and how it looks."""

from llm_prompting.inflection import article
from llm_prompting.phrases import is_look
from llm_prompting.words import DETERMINERS, STYLES


def full_phrase(high: str, low: str) -> str:
    """Say what a thing is and how it looks in one phrase, as a caption would.

    Known adjectives move in front of the noun, where models have read them; all else follows
    after commas.

    Args:
        high: What it is ("an apple").
        low: How it looks, parts joined by commas ("red, shiny, watercolor"); may be empty.

    Returns:
        The phrase ("a red shiny apple, watercolor").
    """
    high = high.strip()
    parts = [part for part in (part.strip() for part in low.split(",")) if part]
    first, _, rest = high.partition(" ")
    if first.lower() not in DETERMINERS or not rest:
        return ", ".join([high, *parts])
    looks = [part for part in parts if _goes_in_front(part)]
    others = [part for part in parts if not _goes_in_front(part)]
    words = " ".join([*looks, rest])
    before = article(words) if first.lower() in {"a", "an"} else first
    return ", ".join([f"{before} {words}", *others])


def _goes_in_front(part: str) -> bool:
    return part.lower() not in STYLES and all(map(is_look, part.lower().split()))
