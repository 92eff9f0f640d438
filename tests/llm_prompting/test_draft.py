import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_prompting.draft import (
    MAX_ANSWER_CHARS,
    AnswerError,
    DraftBox,
    DraftObject,
    PlanDraft,
    draft_schema,
    example_draft,
    read_answer,
)
from llm_prompting.repair import repair

EXAMPLE = example_draft()
ANSWER = EXAMPLE.model_dump_json()


def with_box(**edges: object) -> str:
    data = EXAMPLE.model_dump()
    data["objects"][1]["box"] |= edges
    return json.dumps(data)


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        f"Sure! Here is your plan:\n```json\n{ANSWER}\n```\nHave fun {{}}!",
        f"I think {{about it}} first. {ANSWER} The end.",
        f'{{"thought": "hm"}} {ANSWER}',
        f"<think>{{ ... }}</think>{ANSWER}",
        "\ufeff" + json.dumps(EXAMPLE.model_dump() | {"remark": "extra key"}),
    ],
    ids=["bare", "prose", "braces", "two objects", "thinking", "extra key"],
)
def test_the_plan_is_found_in_whatever_stands_around_it(answer):
    assert read_answer(answer) == EXAMPLE


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "no complete JSON object"),
        ("I am sorry.", "no complete JSON object"),
        (ANSWER[:-20], "no complete JSON object"),
        ("[" * 50_000, "no complete JSON object"),
        ('{"a":' * 15_000, "no complete JSON object"),
        ("{" * 50_000, "no complete JSON object"),
        ("x" * (MAX_ANSWER_CHARS + 1), "at most"),
        (with_box(x0=0.25), "plan.objects[1].box.x0"),
        (with_box(x0="250"), "plan.objects[1].box.x0"),
        (with_box(x0=True), "plan.objects[1].box.x0"),
        (with_box(x0=None), "plan.objects[1].box.x0"),
        ("{}", "no complete JSON object"),
        ('{"objects": []}', "plan.content: Field required"),
        (json.dumps(EXAMPLE.model_dump() | {"objects": "cats"}), "plan.objects"),
    ],
)
def test_the_model_is_told_what_is_wrong_with_its_answer(answer, told):
    with pytest.raises(AnswerError, match=r".") as caught:
        read_answer(answer)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(AnswerError, match="no complete JSON object"):
        read_answer(ANSWER.replace("130", "NaN", 1))


@given(st.text(max_size=200) | st.text('{}[]",:01 ', max_size=200))
def test_any_answer_is_a_plan_or_an_answer_error(answer):
    with contextlib.suppress(AnswerError):
        assert read_answer(answer)


def test_the_schema_is_portable():
    """No bounds, no references, no optional keys: what every server understands."""
    known = {"type", "properties", "required", "additionalProperties", "items"}

    def check(node: dict) -> None:
        assert set(node) <= known
        if node["type"] == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
            for child in node["properties"].values():
                check(child)
        elif node["type"] == "array":
            check(node["items"])
        else:
            assert node["type"] in {"string", "integer"}

    check(draft_schema())


def test_the_schema_and_the_reader_know_the_same_fields():
    schema = draft_schema()
    thing = schema["properties"]["objects"]["items"]
    assert list(schema["properties"]) == list(PlanDraft.model_fields)
    assert list(thing["properties"]) == list(DraftObject.model_fields)
    assert list(thing["properties"]["box"]["properties"]) == list(DraftBox.model_fields)


def test_the_example_that_the_model_is_shown_needs_no_repair():
    prompt = "two red apples left of a sleeping cat, watercolor, no dogs"
    plan = repair(EXAMPLE, prompt)
    assert plan.provenance.repairs == ()
    assert len(plan.objects) == 3
