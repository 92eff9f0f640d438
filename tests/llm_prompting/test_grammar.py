import pytest

from llm_prompting.grammar import MAX_TOKENS, read
from llm_prompting.reading import Place


def shape(prompt: str) -> tuple[list[tuple[int, str]], list[tuple]]:
    reading = read(prompt)
    assert reading.is_understood, reading.failure
    things = [(thing.count, thing.noun) for thing in reading.things]
    relations = [(rel.kind, rel.subjects, rel.references) for rel in reading.relations]
    return things, relations


@pytest.mark.parametrize(
    ("prompt", "things", "relations"),
    [
        ("a red apple to the left of a blue cat, watercolor", ["apple", "cat"],
         [("left of", (0,), (1,))]),
        ("a cat and a dog above a bird", ["cat", "dog", "bird"], [("above", (0, 1), (2,))]),
        ("a cat above a dog and a bird", ["cat", "dog", "bird"], [("above", (0,), (1, 2))]),
        ("a cat left of a dog and above a bird", ["cat", "dog", "bird"],
         [("left of", (0,), (1,)), ("above", (0,), (2,))]),
        ("a cat left of a dog, and a bird above a fish", ["cat", "dog", "bird", "fish"],
         [("left of", (0,), (1,)), ("above", (2,), (3,))]),
        ("a cat above and to the left of a dog", ["cat", "dog"],
         [("above", (0,), (1,)), ("left of", (0,), (1,))]),
        ("a cat left of a dog, the dog above a bird", ["cat", "dog", "bird"],
         [("left of", (0,), (1,)), ("above", (1,), (2,))]),
        ("a cat is to the left of a dog", ["cat", "dog"], [("left of", (0,), (1,))]),
        ("there is a cat behind a house", ["cat", "house"], [("behind", (0,), (1,))]),
        ("a cat between a dog and a bird", ["cat", "dog", "bird"], [("between", (0,), (1, 2))]),
        ("a cat between two dogs", ["cat", "dog", "dog"], [("between", (0,), (1, 2))]),
        ("a cup on a table next to a chair", ["cup", "table", "chair"],
         [("on top of", (0,), (1,)), ("next to", (1,), (2,))]),
        ("a ball underneath a chair", ["ball", "chair"], [("below", (0,), (1,))]),
        ("The quick brown fox jumps over the lazy dog", ["fox", "dog"], [("above", (0,), (1,))]),
        ("apple, banana and cherry", ["apple", "banana", "cherry"], []),
        ("draw a cat & a dog", ["cat", "dog"], []),
        ("a cat on the left side of a dog", ["cat", "dog"], [("left of", (0,), (1,))]),
    ],
)  # fmt: skip
def test_relations_tie_the_right_things(prompt, things, relations):
    found = shape(prompt)
    assert [noun for _, noun in found[0]] == things
    assert found[1] == relations


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ("a star in the top left corner", Place(0, 0)),
        ("a star in the top-left corner of the image", Place(0, 0)),
        ("a star at the lower right", Place(2, 2)),
        ("a star on the left", Place(0, None)),
        ("a star at the top of the picture", Place(None, 0)),
        ("a star in the middle", Place(1, 1)),
        ("a star in the top center", Place(1, 0)),
        ("in the bottom right corner there is a star", Place(2, 2)),
        ("on the right: a star", Place(2, None)),
    ],
)
def test_places_are_ninths_or_sides(prompt, place):
    reading = read(prompt)
    assert reading.is_understood
    assert reading.places == {0: place}


def test_places_go_to_the_thing_beside_them():
    for prompt in (
        "a cat on the left and a dog on the right",
        "on the left a cat, on the right a dog",
        "on the left is a cat and on the right is a dog",
    ):
        assert read(prompt).places == {0: Place(0, None), 1: Place(2, None)}, prompt


def test_words_about_the_whole_picture_are_told_apart():
    reading = read(
        "a pixel art of two small green frogs on a night sky background, with a soft shadow, "
        "dark outlines, highly detailed, 8k, in the style of van Gogh, no cats or dogs"
    )
    assert reading.is_understood
    assert shape("two frogs")[0] == [(thing.count, thing.noun) for thing in reading.things]
    assert reading.style == ["pixel art", "van gogh"]
    assert reading.background == ["night sky background"]
    assert reading.details == ["soft shadow", "dark outlines", "highly detailed", "8k"]
    assert reading.negatives == ["cats, dogs"]


@pytest.mark.parametrize(
    ("prompt", "background"),
    [
        ("a cat on a mint background", "mint background"),
        ("a cat, blue background", "blue background"),
        ("a cat in the forest", "forest"),
        ("a cat in front of a green backdrop", ""),
        ("a cat at night", "night"),
        ("a cat against a starry sky", "starry sky"),
        ("a cat with a red background", "red background"),
        ("a cat in the middle of the desert", "desert"),
        ("a cat on a table", ""),
    ],
)
def test_backgrounds_surround_and_things_do_not(prompt, background):
    reading = read(prompt)
    assert ", ".join(reading.background) == background


@pytest.mark.parametrize(
    ("prompt", "high"),
    [
        ("a man riding a horse", "a man riding a horse"),
        ("a glass of water", "a glass of water"),
        ("a girl with a pearl earring", "a girl with a pearl earring"),
        ("a dog that is flying", "a dog that is flying"),
        ("a fish in a bowl", "a fish in a bowl"),
    ],
)
def test_what_has_no_place_of_its_own_stays_with_its_thing(prompt, high):
    reading = read(prompt)
    assert [thing.high for thing in reading.things] == [high]


def test_looks_said_later_reach_the_thing_named_before():
    reading = read("there is a cat and a dog. The cat is red and fluffy")
    assert [thing.looks for thing in reading.things] == [("red", "fluffy"), ()]
    assert read("a cat, orange and striped").things[0].looks == ("orange", "striped")


@pytest.mark.parametrize("prompt", ["a dog without cats", "no cats, a dog", "a dog but no cats"])
def test_what_must_not_be_there_is_negative_and_no_thing(prompt):
    reading = read(prompt)
    assert reading.negatives == ["cats"]
    assert [thing.noun for thing in reading.things] == ["dog"]


@pytest.mark.parametrize(
    "prompt",
    [
        "", "   ", "!!!", "I dreamed of a world where love exists", "best quality, masterpiece",
        "\u4e00\u53ea\u732b", "(red apple:1.3)", "where is it?", "of of of", "{a|b} cat",
    ],
)  # fmt: skip
def test_what_the_grammar_does_not_know_it_says(prompt):
    assert not read(prompt).is_understood


def test_long_prompts_are_not_read_to_the_end():
    reading = read("a cat, " * 10_000)
    assert not reading.is_understood
    assert str(MAX_TOKENS) in reading.failure
