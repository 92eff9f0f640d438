import pytest

from llm_prompting.phrases import noun_phrase, tokenize


def thing(text: str):
    found = noun_phrase(tokenize(text, most=50), 0)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("text", "high", "looks", "count"),
    [
        ("a cat", "a cat", (), 1),
        ("an orange cat", "a cat", ("orange",), 1),
        ("an orange", "an orange", (), 1),
        ("a dark blue wooden chair", "a chair", ("dark blue", "wooden"), 1),
        ("three small red apples", "an apple", ("small", "red"), 3),
        ("3 apples", "an apple", (), 3),
        ("a black and white cat", "a cat", ("black", "white"), 1),
        ("a big, fluffy dog", "a dog", ("big", "fluffy"), 1),
        ("a purple computer keyboard", "a computer keyboard", ("purple",), 1),
        ("a hot dog", "a hot dog", (), 1),
        ("a red hot air balloon", "a hot air balloon", ("red",), 1),
        ("two teddy bears", "a teddy bear", (), 2),
        ("three wine glasses", "a wine glass", (), 3),
        ("a green skis", "skis", ("green",), 1),
        ("the moon", "the moon", (), 1),
        ("a pair of shoes", "a shoe", (), 2),
        ("a couple of dogs", "a dog", (), 2),
        ("several dogs", "several dogs", (), 1),
        ("dogs", "dogs", (), 1),
        ("12 cats", "12 cats", (), 1),
        ("a colorful parrot", "a parrot", ("colorful",), 1),
        ("a blue coloured cat", "a cat", ("blue",), 1),
        ("one cat", "a cat", (), 1),
        ("both cats", "a cat", (), 2),
        ("0 cats", "a cat", (), 1),
    ],
)
def test_a_phrase_becomes_what_it_is_how_it_looks_and_how_many(text, high, looks, count):
    found = thing(text)
    assert (found.high, found.looks, found.count) == (high, looks, count)


@pytest.mark.parametrize(
    "text", ["", "of", "a", "the", "three", ", cat", "is red", "\u732b", "1girl"]
)
def test_what_is_no_phrase_is_none(text):
    assert thing(text) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a cat left of", "left"),
        ("a cat sitting on", "sitting"),
        ("a parking meter above", "above"),
        ("a dog jumps over", "jumps"),
        ("a cat, a dog", ","),
        ("an orange and a banana", "and"),
        ("a cat next to", "next"),
    ],
)
def test_a_phrase_ends_where_something_else_begins(text, rest):
    tokens = tokenize(text, most=50)
    found = noun_phrase(tokens, 0)
    assert found is not None
    assert tokens[found[1]].lower == rest


def test_sizes_scale_the_box():
    sizes = [thing(f"a {word} cat").size for word in ("tiny", "small", "red", "large", "huge")]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 5


def test_capitals_of_names_are_kept_where_they_matter():
    assert thing("a DNA helix").high == "a DNA helix"
    assert thing("A Cat").high == "a cat"


def test_places_joined_by_a_hyphen_are_two_words():
    assert [token.lower for token in tokenize("Top-left x-ray", most=9)] == ["top", "left", "x-ray"]


def test_no_more_words_are_read_than_asked_for():
    assert len(tokenize("word " * 1000, most=10)) == 10
