import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from llm_prompting.plan import (
    SCHEMA_VERSION,
    Box,
    PlanLimits,
    PlannedObject,
    Provenance,
    Repair,
    ScenePlan,
    json_schema,
    parse_plan,
)

CAT = {"name": "cat", "high": "a cat", "low": "red", "box": {"x0": 0.1, "y0": 0, "x1": 1, "y1": 1}}
PLAN = {
    "schema_version": SCHEMA_VERSION,
    "prompt": "a red cat",
    "objects": [copy.deepcopy(CAT) for _ in range(3)],
}

edges = st.integers(0, 9999)
boxes = st.builds(
    lambda x, y, width, height: Box(
        x0=x / 10_000,
        y0=y / 10_000,
        x1=min(x + width, 10_000) / 10_000,
        y1=min(y + height, 10_000) / 10_000,
    ),
    edges,
    edges,
    st.integers(1, 10_000),
    st.integers(1, 10_000),
)
texts = st.text(max_size=40)
names = st.text(min_size=1, max_size=40)
objects = st.builds(
    PlannedObject,
    name=names,
    high=names,
    low=texts,
    box=boxes,
    z=st.integers(-9, 9),
    weight=st.floats(0.01, 10),
    negative=texts,
)
plans = st.builds(
    ScenePlan,
    prompt=texts,
    content=texts,
    background=texts,
    objects=st.lists(objects, max_size=4).map(tuple),
    negative=texts,
    provenance=st.builds(
        Provenance,
        planner=names,
        cached=st.booleans(),
        repairs=st.just((Repair(kind="swap", object="cat", detail="inverted"),)),
    ),
)


def changed(path: list, value: object) -> dict:
    plan = copy.deepcopy(PLAN)
    place = plan
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return plan


@given(plans)
def test_a_plan_survives_json_unchanged(plan):
    assert parse_plan(json.loads(plan.to_json())) == plan


@pytest.mark.parametrize(
    ("path", "value", "param"),
    [
        (["objects", 2, "box", "x0"], float("nan"), "plan.objects[2].box.x0"),
        (["objects", 2, "box", "x0"], float("inf"), "plan.objects[2].box.x0"),
        (["objects", 2, "box", "x0"], True, "plan.objects[2].box.x0"),
        (["objects", 0, "box", "y1"], "0.5", "plan.objects[0].box.y1"),
        (["objects", 0, "box", "y1"], None, "plan.objects[0].box.y1"),
        (["objects", 1, "box", "x1"], 1.2, "plan.objects[1].box.x1"),
        (["objects", 1, "box", "y0"], -0.1, "plan.objects[1].box.y0"),
        (["objects", 1, "box", "x1"], 0.1, "plan.objects[1].box"),
        (["objects", 1, "box", "y0"], 1, "plan.objects[1].box"),
        (["objects", 1, "box"], [0, 0, 1, 1], "plan.objects[1].box"),
        (["objects", 1, "box"], None, "plan.objects[1]"),
        (["objects", 1, "mask"], "iVBOR", "plan.objects[1]"),
        (["objects", 0, "weight"], 0, "plan.objects[0].weight"),
        (["objects", 0, "z"], 1.5, "plan.objects[0].z"),
        (["objects", 0, "name"], "", "plan.objects[0].name"),
        (["objects", 0, "colour"], "red", "plan.objects[0].colour"),
        (["objects"], {"0": CAT}, "plan.objects"),
        (["objects"], [CAT] * 1000, "plan.objects"),
        (["objects", 0, "low"], "x" * 1_000_000, "plan.objects[0].low"),
        (["objects", 0, "mask"], "x" * 1_000_000, "plan.objects[0]"),
        (["prompt"], "x" * 1_000_000, "plan.prompt"),
        (["style"], 7, "plan.style"),
        (["schema_version"], 2, "plan.schema_version"),
        (["schema_version"], True, "plan.schema_version"),
        (["objects", 2, "low"], "\ud800", "plan.objects[2].low"),
        (["prompt"], "a \udfff cat", "plan.prompt"),
        (["provenance"], {"notes": ["\ud800"]}, "plan.provenance"),
        (["provenance"], {"notes": ["x" * 1_000_000]}, "plan.provenance"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(path, value, param):
    with pytest.raises(InputError) as caught:
        parse_plan(changed(path, value))
    assert caught.value.param == param
    assert param in caught.value.message
    assert len(caught.value.message) < 400
    python = ("tuple", "dictionary", "instance", "Extra inputs")
    assert not any(word in caught.value.message for word in python)


@pytest.mark.parametrize("data", [None, [], "plan", 3, {}, {"schema_version": 1}])
def test_what_is_no_plan_is_refused(data):
    with pytest.raises(InputError):
        parse_plan(data)


def test_the_path_begins_with_the_field_that_held_the_plan():
    with pytest.raises(InputError) as caught:
        parse_plan(changed(["objects", 0, "z"], "1"), param="requests[3].plan")
    assert caught.value.param == "requests[3].plan.objects[0].z"


def test_limits_are_the_callers():
    limits = PlanLimits(max_objects=2)
    with pytest.raises(InputError, match=r"3 entries: at most 2"):
        parse_plan(PLAN, limits=limits)
    assert len(parse_plan(PLAN).objects) == 3


def test_a_mask_may_stand_in_for_a_box():
    plan = copy.deepcopy(PLAN)
    plan["objects"][0] = {"name": "cat", "high": "a cat", "mask": "iVBORw0KGgo="}
    assert parse_plan(plan).objects[0].box is None


def test_one_region_means_the_whole_picture():
    whole = {"name": "all", "high": "all", "box": {"x0": 0, "y0": 0, "x1": 1, "y1": 1}}
    assert parse_plan(PLAN | {"objects": [whole]}).is_one_region
    assert not parse_plan(PLAN | {"objects": [CAT]}).is_one_region
    assert not parse_plan(PLAN | {"objects": [whole, CAT]}).is_one_region
    assert not parse_plan(PLAN | {"objects": []}).is_one_region


def test_the_schema_names_every_field_and_forbids_others():
    schema = json_schema()
    assert set(schema["properties"]) == set(ScenePlan.model_fields)
    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]) == {"Box", "PlannedObject", "Provenance", "Repair"}
