import asyncio
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.bench_planner import broken, judge_all
from benchmarks.planner_sentences import geneval_sentences, own_sentences
from llm_prompting.grammar_backend import GrammarBackend, plan_by_grammar
from llm_prompting.plan import PlanLimits, parse_plan
from llm_prompting.words import (
    COLORS,
    DETERMINERS,
    FUNCTION_WORDS,
    NOUNS,
    NUMBERS,
    PLACE_WORDS,
    SIZES,
)

WORDS = sorted(
    NOUNS | FUNCTION_WORDS | COLORS | set(SIZES)
    | set(NUMBERS) | DETERMINERS | PLACE_WORDS | {",", ".", ";", ":", "7", "style", "corner"}
)  # fmt: skip

any_string = st.text(max_size=300) | st.text(
    st.characters(codec=None), max_size=80
)  # lone surrogates too
word_salad = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)


@given(any_string | word_salad)
@example("a cat between " * 20)
@example("\ud800 a cat")
@example("\x00")
def test_any_string_becomes_a_valid_plan(prompt):
    plan = plan_by_grammar(prompt)
    assert parse_plan(json.loads(plan.to_json()), limits=PlanLimits(max_prompt_chars=10**6)) == plan
    assert plan == plan_by_grammar(prompt)


@pytest.mark.parametrize("prompt", [
    "a cat " * 100_000, "a " * 500_000, "a" * 1_000_000, ", " * 500_000, "left of " * 200_000,
    "on the top left " * 100_000, "(" * 1_000_000, "a-" * 500_000, "no " * 300_000,
    "a cat left of " * 70, "with a soft " * 50 + "shadow", "black and " * 53 + "white cat",
    "in the middle of the " * 30, "one two three four " * 40, "a red, " * 50 + "cat",
])  # fmt: skip
def test_time_is_bounded_whatever_the_prompt(prompt):
    start = time.process_time()
    plan = plan_by_grammar(prompt)
    assert time.process_time() - start < 0.25
    assert len(plan.objects) <= 16
    assert max(len(thing.high) for thing in plan.objects) <= 400


def test_geneval_prompts_keep_what_they_ask_for():
    sentences = geneval_sentences()
    verdicts = judge_all(plan_by_grammar, sentences)
    assert len(verdicts) == 553
    assert all(verdict.valid for verdict in verdicts)
    assert sum(verdict.in_reach and not verdict.broken for verdict in verdicts) >= 0.95 * 553


def test_sentences_of_our_own_grammar_keep_what_they_ask_for():
    verdicts = judge_all(plan_by_grammar, own_sentences(300, seed=1))
    kept = sum(verdict.in_reach and not verdict.broken for verdict in verdicts)
    assert kept >= 0.95 * 300


def test_the_judge_of_boxes_is_not_blind():
    related = [sentence for sentence in geneval_sentences() if sentence.kind == "position"]
    assert related
    for sentence in related:
        plan = plan_by_grammar(sentence.prompt)
        mirrored = plan.model_copy(
            update={
                "objects": tuple(
                    thing.model_copy(update={"box": other.box})
                    for thing, other in zip(plan.objects, plan.objects[::-1], strict=True)
                )
            }
        )
        assert broken(mirrored, sentence)


def test_high_is_what_it_is_and_low_is_how_it_looks():
    plan = plan_by_grammar("two fluffy orange cats to the left of a dog, watercolor, soft light")
    assert [(thing.high, thing.low) for thing in plan.objects] == [
        ("a cat", "fluffy, orange, watercolor"),
        ("a cat", "fluffy, orange, watercolor"),
        ("a dog", "watercolor"),
    ]
    assert plan.content == "two cats to the left of a dog"
    assert plan.topic == "two cats and dog"
    assert (plan.style, plan.details) == ("watercolor", "soft light")


def test_colours_stay_with_their_object():
    plan = plan_by_grammar("a photo of a red cat and a blue dog and a green bird")
    assert [thing.low for thing in plan.objects] == ["red, photo", "blue, photo", "green, photo"]


@pytest.mark.parametrize(
    "prompt",
    ["I dreamed of a world", "\u4e00\u53ea\u732b\u5728\u684c\u5b50\u4e0a", "", "(a:1.3) cat",
     "four cats, four dogs, four birds, four fish and four cows"],
)  # fmt: skip
def test_what_is_out_of_reach_is_one_region_and_says_so(prompt):
    plan = plan_by_grammar(prompt)
    assert plan.is_one_region
    assert "one region" in plan.provenance.notes[0]
    assert plan.objects[0].high == (prompt or "picture")


def test_numbers_too_large_to_lay_out_are_one_region_in_the_plural():
    (cats,) = plan_by_grammar("30 cats").objects
    assert (cats.name, cats.high) == ("cats", "30 cats")


def test_contradictions_are_said_in_the_plan():
    plan = plan_by_grammar("a cat left of a dog, the dog left of the cat")
    assert plan.provenance.notes == ("could not keep: dog left of cat",)


@pytest.mark.parametrize("aspect", [1e-9, 0.3, 3.0, 1e9])
def test_any_shape_of_picture_gets_a_plan(aspect):
    assert len(plan_by_grammar("a cat above two dogs", aspect=aspect).objects) == 3


def test_the_backend_plans_as_the_function_does():
    plan = asyncio.run(GrammarBackend().plan("a cat above a dog", aspect=1.5))
    assert plan == plan_by_grammar("a cat above a dog", aspect=1.5)


@pytest.mark.parametrize(
    ("prompt", "content"),
    [
        ("two berries and a fox", "two berries and a fox"),
        ("two foxes", "two foxes"),
        ("two toys", "two toys"),
        ("two knives and two mice", "two knives and two mice"),
        ("three wine glasses", "three wine glasses"),
        ("two sheep and two scissors", "two sheep and two scissors"),
    ],
)
def test_content_counts_in_english(prompt, content):
    assert plan_by_grammar(prompt).content == content
