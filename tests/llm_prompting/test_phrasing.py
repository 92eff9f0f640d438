import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_prompting.grammar_backend import plan_by_grammar
from llm_prompting.phrasing import full_phrase


@pytest.mark.parametrize(
    ("high", "low", "spoken"),
    [
        ("an apple", "red, watercolor", "a red apple, watercolor"),
        ("a cat", "orange, fluffy", "an orange fluffy cat"),
        ("a cat", "", "a cat"),
        ("the cat", "dark blue", "the dark blue cat"),
        ("a cat", "with long whiskers, blue", "a blue cat, with long whiskers"),
        ("cats", "blue", "cats, blue"),
        ("a", "blue", "a, blue"),
    ],
)
def test_known_adjectives_move_in_front_of_the_noun(high: str, low: str, spoken: str) -> None:
    assert full_phrase(high, low) == spoken


@pytest.mark.parametrize("prompt", ["a red apple", "a small green frog", "an orange cat"])
def test_what_the_grammar_took_apart_is_said_again(prompt: str) -> None:
    thing = plan_by_grammar(prompt).objects[0]
    assert full_phrase(thing.high, thing.low) == prompt


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_word_is_lost(high: str, low: str) -> None:
    spoken = full_phrase(high, low).replace(",", " ").split()
    for word in [*high.split()[1:], *low.replace(",", " ").split()]:
        assert any(word.replace(",", "") in each or each in word for each in spoken)
