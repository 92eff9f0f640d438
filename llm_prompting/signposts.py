"""The small words that say where and how: relations, places, backgrounds, styles, details."""

from llm_prompting.phrases import Token, is_word
from llm_prompting.reading import Place, RelationKind
from llm_prompting.words import (
    COMPOUNDS,
    DETAILS,
    DETERMINERS,
    FUNCTION_WORDS,
    MEDIA,
    PLAIN_MEDIA,
    SCENE_PREPOSITIONS,
    SCENES,
    STYLES,
)

Tokens = tuple[Token, ...]

_RELATIONS: dict[str, RelationKind] = {
    "to the left of": "left of", "on the left of": "left of", "at the left of": "left of",
    "left of": "left of", "on the left side of": "left of", "to the left side of": "left of",
    "to the right of": "right of", "on the right of": "right of", "at the right of": "right of",
    "right of": "right of", "on the right side of": "right of",
    "to the right side of": "right of",
    "above": "above", "over": "above", "higher than": "above",
    "below": "below", "beneath": "below", "underneath": "below", "under": "below",
    "lower than": "below",
    "on": "on top of", "on top of": "on top of", "atop": "on top of", "upon": "on top of",
    "onto": "on top of", "at the top of": "on top of",
    "in front of": "in front of", "behind": "behind", "in back of": "behind",
    "at the back of": "behind",
    "next to": "next to", "beside": "next to", "besides": "next to", "near": "next to",
    "by": "next to", "alongside": "next to", "adjacent to": "next to", "close to": "next to",
    "by the side of": "next to", "at the side of": "next to", "against": "next to",
    "between": "between", "in between": "between",
}  # fmt: skip
_RELATION_WORDS = {tuple(text.split()): kind for text, kind in _RELATIONS.items()}
_LONGEST_RELATION = max(map(len, _RELATION_WORDS))

_COLUMNS = {"left": 0, "right": 2}
_ROWS = {"top": 0, "upper": 0, "bottom": 2, "lower": 2}
_CENTERS = frozenset({"center", "centre", "middle", "centered", "centred"})
_SIDES = frozenset({"corner", "side", "half", "edge", "part", "third", "hand", "area"})
_CANVAS = frozenset({"picture", "image", "canvas", "frame", "scene", "photo", "page", "screen"})

_STYLES_BY_FIRST: dict[str, list[tuple[str, ...]]] = {}
for _style in sorted((tuple(name.split()) for name in STYLES), key=len, reverse=True):
    _STYLES_BY_FIRST.setdefault(_style[0], []).append(_style)


def relation_at(tokens: Tokens, at: int) -> tuple[RelationKind, int] | None:
    """Read a relation ("to the left of").

    Args:
        tokens: The whole prompt.
        at: Where it would begin.

    Returns:
        The relation and the position behind it, or None.
    """
    words = tuple(token.lower for token in tokens[at : at + _LONGEST_RELATION])
    for length in range(len(words), 0, -1):
        kind = _RELATION_WORDS.get(words[:length])
        if kind is not None:
            return kind, at + length
    return None


def place_at(tokens: Tokens, at: int) -> tuple[Place, int] | None:
    """Read a place in the picture ("in the top left corner of the image").

    Args:
        tokens: The whole prompt.
        at: Where it would begin.

    Returns:
        The place and the position behind it, or None; "to the left of a dog" is none.
    """
    start = at
    at = _skip(tokens, at, {"in", "on", "at", "to", "near", "towards"})
    at = _skip(tokens, at, {"the"})
    column: int | None = None
    row: int | None = None
    is_center = False
    first = at
    while at < len(tokens):
        word = tokens[at].lower
        if word in _COLUMNS and column is None:
            column = _COLUMNS[word]
        elif word in _ROWS and row is None:
            row = _ROWS[word]
        elif word in _CENTERS:
            is_center = True
        elif word not in _SIDES or at == first:
            break
        at += 1
    bare = start == first and tokens[at - 1].lower in _COLUMNS | _ROWS and at - first == 1
    if at == first or bare or not (is_center or column is not None or row is not None):
        return None
    if is_center:
        column = 1 if column is None else column
        row = 1 if row is None else row
    behind = _skip_canvas(tokens, at)
    return None if behind is None else (Place(column, row), behind)


def _skip_canvas(tokens: Tokens, at: int) -> int | None:
    if at >= len(tokens) or tokens[at].lower != "of":
        return at
    behind = _skip(tokens, at + 1, {"the", "a"})
    if behind < len(tokens) and tokens[behind].lower in _CANVAS:
        return behind + 1
    return None


def background_at(tokens: Tokens, at: int) -> tuple[str, int] | None:
    """Read what is behind everything ("on a night sky background", "in the forest").

    Args:
        tokens: The whole prompt.
        at: Where it would begin.

    Returns:
        The background without article, and the position behind it; or None.
    """
    start = at
    has_preposition = at < len(tokens) and tokens[at].lower in SCENE_PREPOSITIONS
    at += has_preposition
    if has_preposition and _words_at(tokens, at, 4) == ("the", "middle", "of", "the"):
        at += 3
    at = _skip(tokens, at, DETERMINERS)
    words, at = _run(tokens, at, extra={"and"})
    while words and words[-1] == "and":
        words, at = words[:-1], at - 1
    named = [i for i, word in enumerate(words) if word in {"background", "backdrop"}]
    if named:
        at -= len(words) - named[0] - 1
        words = words[: named[0] + 1]
        return (" ".join(words), at) if len(words) > 1 else None
    if start == at or not has_preposition or not words or words[-1] not in SCENES:
        return None
    if "and" in words or tokens[start].lower == "with":
        return None
    return " ".join(words), at


def style_at(tokens: Tokens, at: int) -> tuple[str, int] | None:
    """Read how it is painted ("watercolor", "in the style of van Gogh", "as a pencil sketch").

    Args:
        tokens: The whole prompt.
        at: Where it would begin.

    Returns:
        The style and the position behind it, or None.
    """
    if _words_at(tokens, at, 4) == ("in", "the", "style", "of"):
        words, behind = _run(tokens, at + 4, extra=DETERMINERS)
        return (" ".join(words), behind) if words else None
    for lead in ({"in"}, {"as"}, {"style"}):
        inner = _skip(tokens, at, lead)
        inner = _skip(tokens, _skip(tokens, inner, {":"}), {"a", "an", "the"})
        words, behind = _run(tokens, inner)
        if words and words[-1] == "style" and len(words) > 1:
            return " ".join(words[:-1]), behind
        known = _known_style(tokens, inner)
        if known is not None and (inner == at or tokens[at].lower in lead):
            return known
    return None


def _known_style(tokens: Tokens, at: int) -> tuple[str, int] | None:
    if at >= len(tokens):
        return None
    for words in _STYLES_BY_FIRST.get(tokens[at].lower, ()):
        if _words_at(tokens, at, len(words)) != words:
            continue
        behind = _skip(tokens, at + len(words), {"style"})
        return (" ".join(words), behind) if ends_chunk(tokens, behind) else None
    return None


def detail_at(tokens: Tokens, at: int) -> tuple[str, int] | None:
    """Read light, shadow and finish ("with a soft shadow and dark outlines").

    Args:
        tokens: The whole prompt.
        at: Where it would begin.

    Returns:
        The details without article, and the position behind them; or None.
    """
    inner = _skip(tokens, at, {"with"})
    if inner > at:
        inner = _skip(tokens, inner, {"a", "an", "the"})
    words, behind = _run(tokens, inner)
    if not words or words[-1] not in DETAILS or not ends_chunk(tokens, behind):
        return None
    if " ".join(words[-2:]) in COMPOUNDS:
        return None
    return " ".join(words), behind


def medium_at(tokens: Tokens, at: int) -> tuple[str, int] | None:
    """Read what kind of picture this is ("a watercolor painting of", "pixel art of").

    Args:
        tokens: The whole prompt.
        at: Where it would begin.

    Returns:
        The medium as a style, empty for "a picture of", and the position behind it; or None.
    """
    at = _skip(tokens, at, {"a", "an", "the"})
    words, behind = _run(tokens, at, extra={"and"})
    if not words or words[-1] not in MEDIA or behind >= len(tokens):
        return None
    if tokens[behind].lower not in {"of", "showing", "depicting", ":", "with"}:
        return None
    named = words[:-1] if words[-1] in PLAIN_MEDIA else words
    return " ".join(named), behind + 1


def ends_chunk(tokens: Tokens, at: int) -> bool:
    """Return whether nothing stands here, or a sign or a joining word.

    Args:
        tokens: The whole prompt.
        at: The position.

    Returns:
        True at the end, at signs, and at words that begin something new.
    """
    if at >= len(tokens) or not is_word(tokens[at]):
        return True
    word = tokens[at].lower
    return word in FUNCTION_WORDS


def _run(
    tokens: Tokens, at: int, extra: frozenset[str] | set[str] = frozenset()
) -> tuple[list[str], int]:
    """Collect words up to the next small word or sign."""
    words: list[str] = []
    while at < len(tokens) and len(words) < 12:
        token = tokens[at]
        small = token.lower in FUNCTION_WORDS or token.lower in DETERMINERS
        if not is_word(token) or (small and token.lower not in extra):
            break
        words.append(token.lower)
        at += 1
    return words, at


def _words_at(tokens: Tokens, at: int, count: int) -> tuple[str, ...]:
    return tuple(token.lower for token in tokens[at : at + count])


def _skip(tokens: Tokens, at: int, words: frozenset[str] | set[str]) -> int:
    return at + 1 if at < len(tokens) and tokens[at].lower in words else at
