from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from llm_prompting.edited import mend_plan
from llm_prompting.grammar_backend import plan_by_grammar
from llm_prompting.plan import PlanLimits, parse_plan

PROMPT = "a red apple left of a blue cat, watercolor"


def edited(**box: float) -> dict[str, Any]:
    data = plan_by_grammar(PROMPT).model_dump(mode="json", exclude_none=True)
    data["objects"][0]["box"] |= box
    return data


def kinds(data: object) -> list[str]:
    return [fix.kind for fix in mend_plan(data).provenance.repairs]


@pytest.mark.parametrize(
    "prompt", [PROMPT, "two small green frogs above a large pink cake", "zzz, (((", "a cat"]
)
def test_a_plan_without_faults_comes_back_as_it_is(prompt: str) -> None:
    plan = plan_by_grammar(prompt)
    assert mend_plan(plan.model_dump(mode="json", exclude_none=True)) == plan


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ({"x0": 0.4635, "x1": 0.0765}, "swap"),
        ({"x0": -0.5}, "clamp"),
        ({"x1": 0.0765}, "drop"),
        ({"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0}, "drop"),
        ({"x1": 0.6}, "overlap"),
    ],
)
def test_what_is_wrong_with_a_box_is_mended_and_listed(box: dict[str, float], kind: str) -> None:
    data = edited(**box)
    assert kind in kinds(data)
    mended = mend_plan(data)
    assert {thing.name for thing in mended.objects} == {"apple", "cat"}
    assert parse_plan(mended.model_dump(mode="json", exclude_none=True)) == mended


def test_lost_and_too_many_objects_are_mended() -> None:
    data = edited()
    lost = {**data, "objects": data["objects"][:1]}
    assert kinds(lost) == ["add"]
    assert kinds({**data, "objects": data["objects"] * 2}) == ["merge", "merge"]
    one = data["objects"][0]
    places = [{"x0": n / 20, "y0": 0.0, "x1": n / 20 + 0.04, "y1": 1.0} for n in range(20)]
    many = [one | {"name": f"thing {n}", "box": box} for n, box in enumerate(places)]
    assert kinds({**data, "prompt": "((", "objects": many}) == ["cap"] * 4


def test_words_weights_and_masks_stay() -> None:
    data = edited()
    data["objects"][0] |= {"weight": 2.5, "negative": "worms"}
    thing = mend_plan(data).objects[0]
    assert (thing.weight, thing.negative) == (2.5, "worms")
    del data["objects"][0]["box"]
    data["objects"][0]["mask"] = "aGVsbG8="
    assert mend_plan(data).objects[0].mask == "aGVsbG8="
    assert kinds(data) == []


@pytest.mark.parametrize(
    ("path", "value", "param"),
    [
        (("objects", 0, "box", "x0"), float("nan"), "plan.objects[0].box.x0"),
        (("objects", 1, "box", "y1"), "1", "plan.objects[1].box.y1"),
        (("objects", 0, "box", "x0"), True, "plan.objects[0].box.x0"),
        (("objects", 0, "high"), 3, "plan.objects[0].high"),
        (("objects", 0, "low"), "x" * 401, "plan.objects[0].low"),
        (("schema_version",), 2, "plan.schema_version"),
        (("objects",), [{}] * 1000, "plan.objects"),
        (("objects",), 3, "plan.objects"),
    ],
)
def test_what_is_no_plan_is_refused_by_path(
    path: tuple[str | int, ...], value: object, param: str
) -> None:
    data: Any = edited()
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(InputError) as error:
        mend_plan(data)
    assert error.value.param == param


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
boxes = st.fixed_dictionaries(dict.fromkeys(("x0", "y0", "x1", "y1"), numbers))


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, max_size=12))
def test_any_boxes_become_a_valid_plan_and_mending_twice_changes_nothing(places: list[Any]) -> None:
    data, limits = edited(), PlanLimits(max_objects=6)
    one = data["objects"][0]
    things = [one | {"name": f"n{number}", "box": box} for number, box in enumerate(places)]
    once = mend_plan({**data, "objects": things}, limits=limits)
    again = mend_plan(once.model_dump(mode="json", exclude_none=True), limits=limits)
    assert again.objects == once.objects
