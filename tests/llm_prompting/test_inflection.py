import pytest

from llm_prompting.inflection import article, is_plural, singular


@pytest.mark.parametrize(
    ("several", "one"),
    [
        ("cats", "cat"), ("benches", "bench"), ("toothbrushs", "toothbrush"), ("knives", "knife"),
        ("knifes", "knife"), ("buses", "bus"), ("vases", "vase"), ("horses", "horse"),
        ("houses", "house"), ("foxes", "fox"), ("glasses", "glass"), ("cherries", "cherry"),
        ("ties", "tie"), ("cookies", "cookie"), ("potatoes", "potato"), ("shoes", "shoe"),
        ("people", "person"), ("persons", "person"), ("mice", "mouse"), ("sheep", "sheep"),
        ("scissors", "scissors"), ("skis", "skis"), ("tvs", "tv"), ("broccolis", "broccoli"),
        ("leaves", "leaf"), ("giraffes", "giraffe"),
    ],
)  # fmt: skip
def test_one_of_several_is_found(several, one):
    assert singular(several) == one
    assert singular(one) == one


@pytest.mark.parametrize("word", ["bus", "glass", "cactus", "dress", "tennis", "cat", "sheep", "s"])
def test_singulars_are_no_plurals(word):
    assert not is_plural(word)


@pytest.mark.parametrize("word", ["scissors", "cats", "people", "mice"])
def test_plurals_are_known(word):
    assert is_plural(word)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("apple", "an"), ("cat", "a"), ("unicorn", "a"), ("umbrella", "an"), ("hourglass", "an"),
        ("orange cat", "an"), ("scissors", ""), ("", ""), ("one-eyed cat", "a"), ("UFO", "a"),
    ],
)  # fmt: skip
def test_articles_follow_the_sound(phrase, expected):
    assert article(phrase) == expected
