"""What the grammar understood of a prompt, before anything has a place."""

from dataclasses import dataclass, field
from typing import Literal

from llm_prompting.phrases import Thing

RelationKind = Literal[
    "left of", "right of", "above", "below", "on top of", "in front of", "behind", "next to",
    "between",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Relation:
    """How some things stand to others.

    Attributes:
        kind: The relation, as it reads in a sentence.
        subjects: Indices of the things that are placed.
        references: Indices of the things that they are placed by.
    """

    kind: RelationKind
    subjects: tuple[int, ...]
    references: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A ninth, or a side, of the picture.

    Attributes:
        column: 0 left, 1 centre, 2 right; None if the words do not say.
        row: 0 top, 1 middle, 2 bottom; None if the words do not say.
    """

    column: int | None
    row: int | None


@dataclass(kw_only=True, slots=True)
class Reading:
    """A prompt, taken apart.

    Attributes:
        things: Everything that is named, in order.
        relations: How the things stand to each other, in order.
        places: Where in the picture a thing stands, by its index.
        background: What is behind everything; may be empty.
        style: Words for how it is painted.
        details: Words for light, shadow and finish.
        negatives: What must not be there.
        failure: The words at which the grammar gave up; empty if it understood the prompt.
    """

    things: list[Thing] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    background: list[str] = field(default_factory=list)
    style: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def is_understood(self) -> bool:
        """Return whether there is something to lay out."""
        return bool(self.things) and not self.failure
