"""Noun phrases: "three small red apples" becomes what it is, how it looks and how many."""

import re
from dataclasses import dataclass, replace

from llm_prompting.inflection import article, is_plural, singular
from llm_prompting.words import (
    COLORS,
    COMPOUNDS,
    DEFAULT_SIZE,
    DETERMINERS,
    FINITE_VERBS,
    FUNCTION_WORDS,
    INTENSIFIERS,
    LOOKS,
    NOUN_ENDINGS_ING,
    NUMBERS,
    PAIRS,
    PLACE_WORDS,
    SIZES,
    VAGUE,
)

MAX_COUNT = 10
MAX_NOUN_WORDS = 4

_TOKEN = re.compile(r"\w[\w'\u2019-]{0,60}|\S")
_WORD = re.compile(r"[a-z\u00e0-\u024f][a-z\u00e0-\u024f'\u2019-]{0,30}")
_ADJECTIVE_ENDINGS = ("ful", "less", "ous", "ish", "esque", "looking", "shaped", "colored")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """What one noun phrase names.

    Attributes:
        noun: What it is, in the singular, without article ("computer keyboard").
        determiner: What stands before it ("a", "the", "several"); may be empty.
        looks: Adjectives in the order given ("dark blue", "fluffy").
        size: Side of its box, relative to a full cell.
        count: How many are laid out, 1..10. Numbers beyond are one region in the plural.
        tail: What belongs to it and has no place of its own ("wearing a hat").
    """

    noun: str
    determiner: str = ""
    looks: tuple[str, ...] = ()
    size: float = DEFAULT_SIZE
    count: int = 1
    tail: str = ""

    @property
    def high(self) -> str:
        """Return the phrase for one of it, without looks: "a cat wearing a hat"."""
        words = self.determiner
        if words in {"a", "an"}:
            words = article(self.noun)
        return " ".join(filter(None, (words, self.noun, self.tail)))


@dataclass(frozen=True, slots=True)
class Token:
    """One word or sign of the prompt.

    Attributes:
        text: As written.
        lower: In lower case, for comparison.
    """

    text: str
    lower: str


def tokenize(prompt: str, *, most: int) -> tuple[Token, ...]:
    """Split a prompt into words and signs, in linear time.

    Args:
        prompt: Any string.
        most: Tokens to return at most; what follows is not looked at.

    Returns:
        The tokens.
    """
    tokens: list[Token] = []
    for match in _TOKEN.finditer(prompt):
        if len(tokens) >= most:
            break
        text = match.group().replace("\u2019", "'").rstrip("-'")
        sides = text.lower().split("-")
        if len(sides) == 2 and set(sides) <= PLACE_WORDS:
            tokens += [Token(side, side) for side in sides]
        else:
            tokens.append(Token(text, text.lower()))
    return tuple(tokens)


def is_word(token: Token) -> bool:
    """Return whether a token may be part of a name: letters that English is written with.

    Args:
        token: The token.

    Returns:
        False for digits, signs, other scripts and anything overlong.
    """
    return _WORD.fullmatch(token.lower) is not None


def is_look(word: str) -> bool:
    """Return whether a word says how something looks.

    Args:
        word: In lower case.

    Returns:
        True for colours, sizes, materials and words that end as adjectives do.
    """
    if word in COLORS or word in LOOKS or word in SIZES or "-" in word:
        return True
    return len(word) > 5 and word.endswith(_ADJECTIVE_ENDINGS)


def noun_phrase(tokens: tuple[Token, ...], start: int) -> tuple[Thing, int] | None:
    """Read one noun phrase.

    Args:
        tokens: The whole prompt.
        start: Where the phrase would begin.

    Returns:
        The thing and the position behind it; None if no noun phrase begins there.
    """
    determiner, count, at = _quantity(tokens, start)
    words, end = _content_words(tokens, at)
    if not words:
        return None
    split = _noun_start([word.lower for word in words])
    noun_words = [word for word in words[split:] if word.lower not in {"and", ","}]
    if not noun_words or len(noun_words) > MAX_NOUN_WORDS or noun_words[-1].lower == "":
        return None
    looks, size = _looks([word.lower for word in words[:split]])
    thing = _thing(noun_words, determiner, count)
    return replace(thing, looks=looks, size=size), end


def _quantity(tokens: tuple[Token, ...], at: int) -> tuple[str, int | None, int]:
    lowers = tuple(token.lower for token in tokens[at : at + 3])
    for words in VAGUE:
        if lowers[: len(words)] == words:
            return " ".join(words), None, at + len(words)
    for pair, number in PAIRS.items():
        if lowers[: len(pair)] == pair:
            return "", number, at + len(pair)
    determiner = ""
    if lowers and lowers[0] in DETERMINERS:
        determiner, at = lowers[0], at + 1
        lowers = lowers[1:]
    if lowers and (lowers[0] in NUMBERS or (lowers[0].isdecimal() and len(lowers[0]) < 4)):
        number = NUMBERS[lowers[0]] if lowers[0] in NUMBERS else int(lowers[0])
        return determiner, max(number, 1), at + 1
    return determiner, None, at


def _content_words(tokens: tuple[Token, ...], at: int) -> tuple[list[Token], int]:
    words: list[Token] = []
    while at < len(tokens):
        token = tokens[at]
        if _continues_looks(tokens, at, words):
            words.append(token)
            at += 1
            continue
        if not is_word(token) or _ends_phrase(tokens, at, words):
            break
        words.append(token)
        at += 1
    return words, at


def _continues_looks(tokens: tuple[Token, ...], at: int, words: list[Token]) -> bool:
    """Return whether a comma or "and" joins two looks: "black and white cat"."""
    if tokens[at].lower not in {"and", ","} or not words or at + 2 >= len(tokens):
        return False
    if not all(is_look(word.lower) or word.lower in {"and", ","} for word in words):
        return False
    following = tokens[at + 2]
    noun_follows = is_word(following) and following.lower not in FUNCTION_WORDS | DETERMINERS
    return words[-1].lower != "orange" and is_look(tokens[at + 1].lower) and noun_follows


def _ends_phrase(tokens: tuple[Token, ...], at: int, words: list[Token]) -> bool:
    word = tokens[at].lower
    following = tokens[at + 1].lower if at + 1 < len(tokens) else ""
    if word in FUNCTION_WORDS or word in DETERMINERS or word in NUMBERS:
        return True
    if word in {"left", "right", "next", "close", "adjacent"} and following in {"of", "to"}:
        return True
    has_noun = any(not is_look(earlier.lower) for earlier in words)
    if not has_noun:
        return False
    if word in FINITE_VERBS:
        return True
    return len(word) > 4 and word.endswith("ing") and word not in NOUN_ENDINGS_ING


def _noun_start(words: list[str]) -> int:
    """Return where the name begins: behind the looks, and never behind the last word."""
    for length in (4, 3, 2):
        name = " ".join([*words[-length:-1], singular(words[-1])])
        if len(words) >= length and name in COMPOUNDS:
            return len(words) - length
    split = 0
    while split < len(words) - 1 and (is_look(words[split]) or words[split] in {"and", ","}):
        # "a toy car park": a compound further in keeps its first half.
        if " ".join([words[split], singular(words[split + 1])]) in COMPOUNDS:
            break
        split += 1
    return split


def _looks(words: list[str]) -> tuple[tuple[str, ...], float]:
    looks: list[str] = []
    size = DEFAULT_SIZE
    pending: list[str] = []
    for word in words:
        if word in {"and", ",", "colored", "coloured"}:
            continue
        size = SIZES.get(word, size)
        pending.append(word)
        if word not in INTENSIFIERS:
            looks.append(" ".join(pending))
            pending = []
    if pending:
        looks.append(" ".join(pending))
    return tuple(looks), size


def _thing(words: list[Token], determiner: str, count: int | None) -> Thing:
    head = words[-1].lower
    start = " ".join(word.text if word.text.isupper() else word.lower for word in words[:-1])
    one = f"{start} {singular(head)}".strip()
    several = f"{start} {head}".strip()
    if count is not None and count > MAX_COUNT:
        return Thing(noun=several, determiner=str(count))
    if count is not None:
        return Thing(noun=one, determiner="a", count=count)
    if is_plural(head):
        # "a green skis": whoever writes an article means one.
        named = one if determiner in {"a", "an"} else several
        return Thing(noun=named, determiner="" if determiner in {"a", "an"} else determiner)
    return Thing(noun=several, determiner=determiner or "a")
