"""Take a prompt apart without a language model: things, relations, places, background, style."""

from dataclasses import replace

from llm_prompting.inflection import is_plural
from llm_prompting.phrases import Thing, Token, is_look, is_word, noun_phrase, tokenize
from llm_prompting.reading import Place, Reading, Relation, RelationKind
from llm_prompting.signposts import (
    background_at,
    detail_at,
    ends_chunk,
    medium_at,
    place_at,
    relation_at,
    style_at,
)
from llm_prompting.words import DETERMINERS, FUNCTION_WORDS, NOUNS, NUMBERS, REQUESTS, SIZES

MAX_TOKENS = 160

_COPULAS = frozenset({"is", "are", "was", "were"})
_SEPARATORS = frozenset({",", ";", ".", "and", "&", "but", "while", "!", "|", ":", "also", "plus"})
_NEGATIONS = frozenset({"no", "without"})


def read(prompt: str) -> Reading:
    """Take a prompt apart.

    Each step consumes at least one word, and looks ahead a bounded number of words; so the time
    grows with the length of the prompt, up to `MAX_TOKENS`.

    Args:
        prompt: Any string.

    Returns:
        What was understood; `failure` holds the words that were not.
    """
    tokens = tokenize(prompt, most=MAX_TOKENS + 1)
    if len(tokens) > MAX_TOKENS:
        return Reading(failure=f"more than {MAX_TOKENS} words")
    return _Reader(tokens).read()


class _Reader:
    """One walk over the words from left to right.

    `group` are the things that the next relation will place; `subjects` those that the last
    relation placed: "a cat left of a dog and above a bird" places the cat twice.
    """

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self.tokens = tokens
        self.at = 0
        self.reading = Reading()
        self.group: list[int] = []
        self.subjects: list[int] = []
        self.group_is_reference = False
        self.pending_place: Place | None = None
        self.joiner = "start"

    def read(self) -> Reading:
        self._skip_opening()
        steps = (
            self._separator, self._negation, self._existence, self._background, self._style,
            self._detail, self._place, self._relation, self._copula, self._looks_chunk,
            self._thing, self._tail, self._loose_detail,
        )  # fmt: skip
        while self.at < len(self.tokens):
            before = self.at
            if not any(step() for step in steps) or self.at <= before:
                rest = " ".join(token.text for token in self.tokens[before : before + 6])
                self.reading.failure = rest
                break
        return self.reading

    def _word(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at].lower if at < len(self.tokens) else ""

    def _skip_opening(self) -> None:
        while self._word() in REQUESTS:
            self.at += 1
        medium = medium_at(self.tokens, self.at)
        if medium is not None:
            style, self.at = medium
            if style:
                self.reading.style.append(style)

    def _separator(self) -> bool:
        word = self._word()
        if word not in _SEPARATORS:
            return False
        # ", and" begins a new clause as a comma does.
        if word not in {"and", "&"} or self.joiner == "word":
            self.joiner = "and" if word in {"and", "&"} else "comma"
        self.at += 1
        return True

    def _negation(self) -> bool:
        if self._word() not in _NEGATIONS:
            return False
        self.at += 1
        while self._word() in DETERMINERS | {"any"}:
            self.at += 1
        words: list[str] = []
        while self.at < len(self.tokens) and self._word() not in _SEPARATORS:
            words.append("," if self._word() in {"or", "nor"} else self._word())
            self.at += 1
        text = " ".join(words).replace(" ,", ",")
        if text:
            self.reading.negatives.append(text)
        self.joiner = "word"
        return True

    def _existence(self) -> bool:
        if self._word() != "there" or self._word(1) not in _COPULAS:
            return False
        self.at += 2
        return True

    def _background(self) -> bool:
        found = background_at(self.tokens, self.at)
        if found is None:
            return False
        self._take(self.reading.background, found)
        return True

    def _style(self) -> bool:
        found = style_at(self.tokens, self.at)
        # A bare word is a style only behind a comma: "a sketch" may be a thing.
        if found is None or (self.joiner not in {"comma", "and"} and self._word() in NOUNS):
            return False
        if not self.reading.things and self._word() in DETERMINERS:
            return False
        self._take(self.reading.style, found)
        return True

    def _detail(self) -> bool:
        found = detail_at(self.tokens, self.at)
        if found is None or not self.reading.things:
            return False
        if self._word() != "with" and self.joiner not in {"comma", "and"}:
            return False
        self._take(self.reading.details, found)
        return True

    def _take(self, texts: list[str], found: tuple[str, int]) -> None:
        text, self.at = found
        texts.append(text)
        self.joiner = "word"

    def _place(self) -> bool:
        found = place_at(self.tokens, self.at)
        if found is None:
            return False
        place, behind = found
        leads = self.joiner != "word" and self._thing_follows(behind)
        if not leads and not self.group:
            return False
        self.at = behind
        if leads:
            self.pending_place = place
            while self._word() in _COPULAS | {":", ",", "there"}:
                self.at += 1
        else:
            self.reading.places.setdefault(self.group[-1], place)
            self.joiner = "word"
        return True

    def _thing_follows(self, at: int) -> bool:
        while at < len(self.tokens) and self.tokens[at].lower in _COPULAS | {":", ",", "there"}:
            at += 1
        return noun_phrase(self.tokens, at) is not None and style_at(self.tokens, at) is None

    def _relation(self) -> bool:
        found = relation_at(self.tokens, self.at)
        if found is None or not self.group:
            return False
        kinds, behind = [found[0]], found[1]
        while behind < len(self.tokens) and self.tokens[behind].lower == "and":
            found = relation_at(self.tokens, behind + 1)
            if found is None:
                break
            kinds, behind = [*kinds, found[0]], found[1]
        if noun_phrase(self.tokens, behind) is None:
            return False
        again = self.group_is_reference and self.joiner in {"and", "comma"}
        self._place_group(kinds, list(self.subjects if again else self.group), behind)
        return True

    def _place_group(self, kinds: list[RelationKind], subjects: list[int], behind: int) -> None:
        self.at = behind
        first = self._read_thing()
        references = [first]
        if "between" in kinds and self._word() == "and":
            self.at += 1
            if noun_phrase(self.tokens, self.at) is not None:
                references.append(self._read_thing())
        elif "between" in kinds:
            references += self._split_in_two(first)
        subjects = [subject for subject in subjects if subject not in references]
        if subjects:
            things = (tuple(subjects), tuple(references))
            self.reading.relations += [Relation(kind, *things) for kind in kinds]
        self.subjects, self.group, self.group_is_reference = subjects, references, True
        self.joiner = "word"

    def _split_in_two(self, index: int) -> list[int]:
        """Part "two dogs", so that something can stand between them."""
        thing = self.reading.things[index]
        if thing.count < 2:
            return []
        half = thing.count // 2
        self.reading.things[index] = replace(thing, count=thing.count - half)
        self.reading.things.append(replace(thing, count=half))
        return [len(self.reading.things) - 1]

    def _copula(self) -> bool:
        if self._word() not in _COPULAS or not self.group:
            return False
        behind = self.at + 1
        where = relation_at(self.tokens, behind) or place_at(self.tokens, behind)
        if where is not None or background_at(self.tokens, behind) is not None:
            self.at = behind
            return True
        looks, end = self._looks_run(behind)
        if not looks:
            return False
        self._add_looks(looks, end)
        return True

    def _looks_chunk(self) -> bool:
        if not self.reading.things or self.joiner not in {"comma", "and"}:
            return False
        looks, end = self._looks_run(self.at)
        if not looks or looks[-1] in NOUNS:
            return False
        self._add_looks(looks, end)
        return True

    def _looks_run(self, at: int) -> tuple[list[str], int]:
        """Collect looks that nothing follows: "red and striped", but not "red apple"."""
        looks: list[str] = []
        while at < len(self.tokens):
            word = self.tokens[at].lower
            more = word == "and" and at + 1 < len(self.tokens) and looks
            if more and is_look(self.tokens[at + 1].lower):
                at += 1
            elif is_look(word):
                looks.append(word)
                at += 1
            else:
                break
        return (looks, at) if ends_chunk(self.tokens, at) else ([], at)

    def _add_looks(self, looks: list[str], end: int) -> None:
        for index in self.group[-1:]:
            thing = self.reading.things[index]
            size = next((SIZES[look] for look in looks if look in SIZES), thing.size)
            self.reading.things[index] = replace(thing, looks=(*thing.looks, *looks), size=size)
        self.at = end
        self.joiner = "word"

    def _thing(self) -> bool:
        if self.joiner == "word" and self.reading.things and not self._begins_clause():
            return False
        phrase = noun_phrase(self.tokens, self.at)
        if phrase is None or not self._may_be_thing(phrase[0]):
            return False
        coordinated = self.joiner == "and" and bool(self.group)
        index = self._read_thing()
        if not coordinated:
            self.group, self.group_is_reference = [index], False
        elif not self.group_is_reference:
            self.group = [*self.group, index]
        elif self._relation_ahead():
            self.group, self.group_is_reference = [index], False
        else:
            self._extend_reference(index)
        self.joiner = "word"
        return True

    def _begins_clause(self) -> bool:
        # "on the left a cat", "there is a cat": what stood before already is the joiner.
        before = self.tokens[self.at - 1].lower
        return self.pending_place is not None or before in _COPULAS

    def _may_be_thing(self, thing: Thing) -> bool:
        """Return whether a phrase is a thing rather than a mood or a finish ("best quality")."""
        word = self._word()
        if self.joiner == "and" or self.pending_place is not None:
            return True
        marked = word in DETERMINERS or word in NUMBERS or word.isdecimal() or thing.count > 1
        if marked or thing.noun.split()[-1] in NOUNS:
            return True
        first = not self.reading.things
        return first and (bool(thing.looks) or is_plural(thing.noun.split()[-1]))

    def _relation_ahead(self) -> bool:
        found = relation_at(self.tokens, self.at)
        if found is None or place_at(self.tokens, self.at) is not None:
            return False
        return noun_phrase(self.tokens, found[1]) is not None

    def _extend_reference(self, index: int) -> None:
        """Let "a cat above a dog and a bird" place the cat above both: true in either reading."""
        self.group = [*self.group, index]
        last = self.reading.relations[-1] if self.reading.relations else None
        if last is not None and last.kind != "between" and index not in last.subjects:
            wider = replace(last, references=(*last.references, index))
            self.reading.relations[-1] = wider

    def _read_thing(self) -> int:
        phrase = noun_phrase(self.tokens, self.at)
        if phrase is None:
            raise AssertionError("a noun phrase was seen here")
        thing, self.at = phrase
        index = self._known(thing)
        if index is None:
            index = len(self.reading.things)
            self.reading.things.append(thing)
        if self.pending_place is not None:
            self.reading.places.setdefault(index, self.pending_place)
            self.pending_place = None
        self._read_contents(index)
        return index

    def _known(self, thing: Thing) -> int | None:
        """Find what "the cat" points back to."""
        if thing.determiner != "the":
            return None
        for index, known in enumerate(self.reading.things):
            if known.noun == thing.noun and known.determiner in {"a", "an", "the"}:
                self.reading.things[index] = replace(known, looks=(*known.looks, *thing.looks))
                return index
        return None

    def _read_contents(self, index: int) -> None:
        """Read "of water" behind "a glass": no place of its own."""
        if self._word() != "of":
            return
        phrase = noun_phrase(self.tokens, self.at + 1)
        if phrase is not None:
            self._add_tail(index, self.at, phrase[1])

    def _tail(self) -> bool:
        """Keep with its thing what has no place of its own: "wearing a hat", "with wings"."""
        if not self.group or self.joiner != "word":
            return False
        start = self.at
        self.at += 1
        while self.at < len(self.tokens) and not self._ends_tail():
            self.at += 1
        if not all(is_word(token) for token in self.tokens[start : self.at]):
            self.at = start
            return False
        self._add_tail(self.group[-1], start, self.at)
        return True

    def _ends_tail(self) -> bool:
        word = self._word()
        if word in _SEPARATORS or word in _NEGATIONS:
            return True
        if word not in FUNCTION_WORDS:
            return False
        if background_at(self.tokens, self.at) or style_at(self.tokens, self.at):
            return True
        return self._relation_ahead() or place_at(self.tokens, self.at) is not None

    def _add_tail(self, index: int, start: int, end: int) -> None:
        words = " ".join(token.text for token in self.tokens[start:end])
        thing = self.reading.things[index]
        self.reading.things[index] = replace(thing, tail=f"{thing.tail} {words}".strip())
        self.at = end

    def _loose_detail(self) -> bool:
        """Take a chunk behind a comma that names no thing as a detail: "8k", "moody"."""
        if not self.reading.things or self.joiner != "comma" or self._word() in DETERMINERS:
            return False
        start = self.at
        while self.at < len(self.tokens) and self._word() not in {",", ";", "."}:
            self.at += 1
        words = [token.lower for token in self.tokens[start : self.at]]
        plain = all(word.isascii() and word.isalnum() for word in words)
        if not words or len(words) > 8 or not plain:
            self.at = start
            return False
        self.reading.details.append(" ".join(words))
        self.joiner = "word"
        return True
