"""English endings: one of several, and the article in front."""

from llm_prompting.words import ONLY_PLURAL, SAME_IN_PLURAL, SINGULARS_IN_S

_IRREGULAR = {
    "mice": "mouse", "men": "man", "women": "woman", "people": "person", "children": "child",
    "geese": "goose", "feet": "foot", "teeth": "tooth", "oxen": "ox", "dice": "die",
    "knives": "knife", "wives": "wife", "lives": "life", "leaves": "leaf", "wolves": "wolf",
    "loaves": "loaf", "shelves": "shelf", "halves": "half", "calves": "calf", "scarves": "scarf",
    "elves": "elf", "thieves": "thief", "hooves": "hoof", "cacti": "cactus", "octopi": "octopus",
    "buses": "bus", "gases": "gas", "lenses": "lens", "octopuses": "octopus", "movies": "movie",
    "cactuses": "cactus", "walruses": "walrus", "irises": "iris", "cookies": "cookie",
    "zombies": "zombie", "brownies": "brownie", "selfies": "selfie", "shoes": "shoe",
    "toes": "toe", "canoes": "canoe", "axes": "axe", "snowmen": "snowman", "firemen": "fireman",
    "aches": "ache", "headaches": "headache", "quizzes": "quiz",
}  # fmt: skip
_IRREGULAR_PLURALS = {one: several for several, one in reversed(_IRREGULAR.items())}
_VOWEL_IN_SOUND = ("hour", "honest", "honor", "heir")
_CONSONANT_IN_SOUND = ("uni", "use", "euro", "one", "ukulele", "utensil", "ufo")


def singular(word: str) -> str:
    """Return one of what the word names; a word in the singular stays as it is.

    Args:
        word: A noun in lower case, in the singular or plural ("knives", "toothbrushs").

    Returns:
        The singular ("knife", "toothbrush").
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in SAME_IN_PLURAL | SINGULARS_IN_S or len(word) < 3 or not word.endswith("s"):
        return word
    if word.endswith("ies"):
        return word[:-1] if len(word) <= 4 else word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes", "oes")):
        return word[:-2]
    if word.endswith(("ss", "us")):
        return word
    return word[:-1]


def plural(noun: str) -> str:
    """Return several of what a noun names; a noun in the plural stays as it is.

    Args:
        noun: A noun of one or more words, in lower case.

    Returns:
        The plural.
    """
    start, _, word = noun.rpartition(" ")
    if word in SAME_IN_PLURAL or is_plural(word):
        return noun
    if word in _IRREGULAR_PLURALS:
        return f"{start} {_IRREGULAR_PLURALS[word]}".strip()
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def is_plural(word: str) -> bool:
    """Return whether a noun in lower case names several, or comes in pairs ("scissors").

    Args:
        word: The noun.

    Returns:
        True for "cats" and "scissors", False for "cat", "glass" and "sheep".
    """
    return word in ONLY_PLURAL or singular(word) != word


def article(phrase: str) -> str:
    """Return "a" or "an", whichever the phrase is spoken with; nothing for what is only plural.

    Args:
        phrase: A noun phrase without article.

    Returns:
        The article, or an empty string.
    """
    words = phrase.lower().split()
    if not words or words[-1] in ONLY_PLURAL:
        return ""
    first = words[0]
    if first.startswith(_CONSONANT_IN_SOUND):
        return "a"
    return "an" if first.startswith((*"aeiou", *_VOWEL_IN_SOUND)) else "a"
