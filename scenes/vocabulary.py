"""The words of the emoji world, and which combinations of them training never sees.

Objects are glyphs of the Noto Color Emoji font. Colours are GenEval's ten. Held-out combinations
are chosen by a hash of their names, so they never move when words are added.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

RGB = tuple[int, int, int]

CANVAS_PX: Final = 128
HELD_OUT_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Noun:
    """One kind of object.

    Attributes:
        glyph: Its emoji.
        plural: The word for several.
        own_color: The colour word that its untinted look already deserves; None if no one word.
            Such a pair is drawn untinted, so "an apple" and "a red apple" look the same.
    """

    glyph: str
    plural: str
    own_color: str | None = None


@dataclass(frozen=True, slots=True)
class Background:
    """A backdrop: one colour, or a vertical gradient from `top` to `bottom`."""

    top: RGB
    bottom: RGB


NOUNS: Final[dict[str, Noun]] = {
    "apple": Noun("\U0001f34e", "apples", "red"),
    "butterfly": Noun("\U0001f98b", "butterflies"),
    "car": Noun("\U0001f697", "cars", "red"),
    "cat": Noun("\U0001f431", "cats"),
    "dog": Noun("\U0001f436", "dogs"),
    "fish": Noun("\U0001f41f", "fish", "blue"),
    "frog": Noun("\U0001f438", "frogs", "green"),
    "heart": Noun("\u2764", "hearts", "red"),
    "moon": Noun("\U0001f319", "moons", "yellow"),
    "mushroom": Noun("\U0001f344", "mushrooms"),
    "owl": Noun("\U0001f989", "owls", "brown"),
    "penguin": Noun("\U0001f427", "penguins"),
    "star": Noun("\u2b50", "stars", "yellow"),
    "sunflower": Noun("\U0001f33b", "sunflowers"),
    "tree": Noun("\U0001f333", "trees", "green"),
    "turtle": Noun("\U0001f422", "turtles", "green"),
}

COLORS: Final[dict[str, RGB]] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 50),
    "green": (30, 140, 60),
    "blue": (35, 85, 215),
    "purple": (125, 45, 160),
    "pink": (255, 130, 190),
    "brown": (115, 70, 35),
    "black": (32, 32, 34),
    "white": (246, 246, 248),
}

BACKGROUNDS: Final[dict[str, Background]] = {
    "gray": Background((150, 155, 160), (150, 155, 160)),
    "sky": Background((160, 205, 238), (160, 205, 238)),
    "mint": Background((170, 224, 194), (170, 224, 194)),
    "sand": Background((224, 205, 162), (224, 205, 162)),
    "lilac": Background((190, 180, 226), (190, 180, 226)),
    "night": Background((40, 46, 92), (40, 46, 92)),
    "sunset": Background((247, 196, 150), (214, 150, 178)),
    "ocean": Background((176, 226, 228), (70, 134, 156)),
}

SIZES_PX: Final[dict[str, tuple[int, ...]]] = {
    "small": (32, 34, 36),
    "medium": (44, 47, 50),
    "large": (60, 64, 68),
}

STYLES: Final = ("natural", "pixel art", "watercolor", "neon")
DETAILS: Final = ("plain", "soft shadow", "dark outline")
RELATIONS: Final = ("left of", "right of", "above", "below", "in front of")

# Centre of each named place, as fractions of the canvas.
PLACES: Final[dict[str, tuple[float, float]]] = {
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.25),
    "bottom": (0.5, 0.75),
    "top left corner": (0.26, 0.26),
    "top right corner": (0.74, 0.26),
    "bottom left corner": (0.26, 0.74),
    "bottom right corner": (0.74, 0.74),
    "centre": (0.5, 0.5),
}


def is_held_out_color(noun: str, color: str | None) -> bool:
    """Return whether training never shows this noun in this colour.

    Args:
        noun: A key of NOUNS.
        color: A key of COLORS, or None for the object's own look.
    """
    if color is None or color == NOUNS[noun].own_color:
        return False
    return _hash_share("color", noun, color) < HELD_OUT_SHARE


def is_held_out_relation(subject: str, relation: str, other: str) -> bool:
    """Return whether training never shows `subject` in this relation to `other`.

    Args:
        subject: A key of NOUNS.
        relation: One of RELATIONS.
        other: A key of NOUNS.

    The mirrored wording ("a left of b", "b right of a") is one fact and is held out as one.
    """
    mirrored = {"right of": "left of", "below": "above"}
    if relation in mirrored:
        subject, relation, other = other, mirrored[relation], subject
    return _hash_share("relation", subject, relation, other) < HELD_OUT_SHARE


def _hash_share(*words: str) -> float:
    digest = hashlib.blake2b("/".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
