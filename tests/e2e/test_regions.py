"""Plans and regions over the API: real server, real clients, real model."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from openai import BadRequestError, OpenAI
from PIL import Image

from cli.generate import generate
from llm_prompting.grammar_backend import plan_by_grammar
from llm_prompting.plan import parse_plan
from pipelines.png import read_png_spec

PROMPT = "a red apple left of a blue cat, watercolor"
LEFT, RIGHT = {"x0": 0, "y0": 0, "x1": 0.5, "y1": 1}, {"x0": 0.5, "y0": 0, "x1": 1, "y1": 1}
TWO = [
    {"high": "a cat", "low": "red", "box": LEFT},
    {"high": "a dog", "low": "blue", "box": RIGHT, "feather": 0.1, "weight": 2, "z": 1},
]


def paint(client: OpenAI, **extra: Any) -> Any:
    common = {"seed": 7, "steps": 2} | extra
    return client.images.generate(prompt=PROMPT, extra_body=common)


def png(answer: Any) -> bytes:
    return base64.b64decode(answer.data[0].b64_json)


def mask(size: tuple[int, int] = (128, 128), mode: str = "L") -> str:
    grid = np.mgrid[: size[1], : size[0]] / 64 - 1
    disc = Image.fromarray(((grid**2).sum(0) < 0.5).astype(np.uint8) * 255).convert(mode)
    stream = BytesIO()
    disc.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def plan(**changes: Any) -> dict[str, Any]:
    return plan_by_grammar(PROMPT).model_dump(mode="json", exclude_none=True) | changes


def test_a_plan_travels_from_the_planner_through_the_picture_and_back(
    client: OpenAI, http: httpx2.Client
) -> None:
    made = http.post("/v1/plans", json={"prompt": PROMPT, "size": "128x128"})
    assert made.status_code == 200
    assert parse_plan(made.json()).objects == plan_by_grammar(PROMPT).objects
    painted = paint(client, plan=made.json())
    answer = painted.model_dump()
    assert answer["plan"] == made.json()
    assert answer["data"][0]["revised_prompt"].startswith("an apple to the left of a cat, a red")
    origin = read_png_spec(png(painted)).spec
    assert json.loads(origin.plan) == made.json()
    assert [region.high for region in origin.regions] == ["an apple", "a cat"]
    again = paint(client, plan=json.loads(origin.plan))
    assert png(again) == png(painted) != png(paint(client))


def test_the_api_and_the_command_write_the_same_file(
    client: OpenAI, folder: Path, tmp_path: Path
) -> None:
    generate(
        PROMPT, output=tmp_path / "x.png", seed=7, steps=2, planner="grammar", depth="release",
        region_window=(0.0, 0.5), base_ratio=0.25, model=str(folder), device="cpu",
        backend="torch",
    )  # fmt: skip
    knobs = {"depth": "release", "region_window": [0.0, 0.5], "base_ratio": 0.25}
    served = png(paint(client, planner="grammar", **knobs))
    ours = (tmp_path / "x.png").read_bytes()
    assert read_png_spec(served).spec.regions == read_png_spec(ours).spec.regions
    is_same = served == ours  # two files would be compared byte by byte for the message
    assert is_same


def test_regions_masks_and_depth_maps_are_honoured(client: OpenAI) -> None:
    rules = [{"level": "low"}, {"level": "high", "scope": "both"}]
    asked = [
        {"regions": TWO},
        {"regions": TWO[:1]},
        {"regions": [TWO[0] | {"negative": "a apple"}]},
        {"regions": [{"high": "a cat", "mask": mask()}]},
        {"regions": TWO, "depth": rules},
        {"regions": TWO, "depth": "reversed"},
        {"regions": TWO, "region_window": [0.0, 0.5]},
        {"regions": TWO, "base_ratio": 0.5},
        {"regions": TWO[:1], "ground": "at night"},
        {},
    ]
    files = {png(paint(client, **extra)) for extra in asked}
    assert len(files) == len(asked)
    for mode in ("1", "RGB", "RGBA", "P"):
        same = png(paint(client, regions=[{"high": "a cat", "mask": mask(mode=mode)}]))
        assert read_png_spec(same).spec.regions[0].mask is not None


def test_n_pictures_share_the_plan_and_differ_in_their_seed(client: OpenAI) -> None:
    extra = {"seed": 7, "steps": 2, "planner": "grammar"}
    answer = client.images.generate(prompt=PROMPT, n=2, extra_body=extra)
    specs = [read_png_spec(base64.b64decode(each.b64_json)).spec for each in answer.data]
    assert [spec.seed for spec in specs] == [7, 8]
    assert specs[0].regions == specs[1].regions


def test_without_a_planner_the_prompt_is_painted_as_it_is(client: OpenAI) -> None:
    answer = paint(client).model_dump()
    assert (answer["plan"], answer["data"][0]["revised_prompt"]) == (None, None)
    assert png(paint(client, planner="none")) == png(paint(client))


def test_a_plan_of_one_region_changes_no_pixel(client: OpenAI) -> None:
    extra = {"seed": 7, "steps": 2}
    odd = "dreaming of nothing at all ((("
    plain = client.images.generate(prompt=odd, extra_body=extra)
    planned = client.images.generate(prompt=odd, extra_body=extra | {"planner": "grammar"})
    assert planned.model_dump()["plan"]["provenance"]["notes"]
    pixels = [Image.open(BytesIO(png(each))).tobytes() for each in (plain, planned)]
    assert pixels[0] == pixels[1]


def test_an_edited_plan_is_mended_and_says_how(http: httpx2.Client) -> None:
    edited = plan()
    edited["objects"][0]["box"] |= {"x0": 0.45, "x1": -0.2}
    answer = http.post("/v1/plans", json={"plan": edited})
    assert answer.status_code == 200
    kinds = [fix["kind"] for fix in answer.json()["provenance"]["repairs"]]
    assert kinds == ["clamp", "swap"]
    assert http.post("/v1/plans", json={"plan": answer.json()}).json() == answer.json()


BOX = TWO[0]["box"]
THING = plan()["objects"][0]
BARE = {"name": "a", "high": "a"}
BAD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("regions[0].box.x1", {"regions": [{"high": "a", "box": {**BOX, "x0": 0.9}}]}),
    ("regions[0].box.x1", {"regions": [{"high": "a", "box": {**BOX, "x1": 1.5}}]}),
    ("regions[0].box.x1", {"regions": [{"high": "a", "box": {**BOX, "x1": 0}}]}),
    ("regions[0].box.x0", {"regions": [{"high": "a", "box": {**BOX, "x0": "0"}}]}),
    ("regions[1].box.y1", {"regions": [TWO[0], {"high": "a", "box": {"x0": 0, "y0": 0, "x1": 1}}]}),
    ("regions[0]", {"regions": [{"high": "a"}]}),
    ("regions[0].colour", {"regions": [{"high": "a", "box": BOX, "colour": "red"}]}),
    ("regions", {"regions": [TWO[0]] * 500}),
    ("regions[0].high", {"regions": [{"high": "cat " * 10_000, "box": BOX}]}),
    ("regions[0].high", {"regions": [{"high": "cat " * 30, "box": BOX}]}),
    ("regions[0].high", {"regions": [{"high": " ", "box": BOX}]}),
    ("regions[0].mask", {"regions": [{"high": "a", "mask": mask((64, 64))}]}),
    ("regions[0].mask", {"regions": [{"high": "a", "mask": "no base64!"}]}),
    ("regions[0].mask", {"regions": [{"high": "a", "mask": "aGVsbG8gd29ybGQ="}]}),
    ("regions[0].mask", {"regions": [{"high": "a", "mask": mask()[:200]}]}),
    ("regions[0].negative", {"regions": [TWO[0] | {"negative": "dog"}], "guidance": 1}),
    ("plan.schema_version", {"plan": plan(schema_version=2)}),
    ("plan.objects", {"plan": plan(objects=[plan()["objects"][0]] * 17)}),
    ("plan.objects[0].box", {"plan": plan(objects=[THING | {"box": {**BOX, "x1": 0}}])}),
    ("plan.objects[0].mask", {"plan": plan(objects=[BARE | {"mask": mask((8, 8))}])}),
    ("plan.objects[0].high", {"plan": plan(objects=[THING | {"high": "cat " * 40}])}),
    ("plan.content", {"plan": plan(content="cat " * 40)}),
    ("regions", {"plan": plan(), "regions": TWO}),
    ("planner", {"plan": plan(), "planner": "grammar"}),
    ("planner", {"planner": "openai"}),
    ("depth", {"depth": "flat"}),
    ("depth", {"regions": TWO, "depth": "shallow"}),
    ("depth", {"regions": TWO, "depth": [{}] * 3}),
    ("depth[1].level", {"regions": TWO, "depth": [{}, {"level": "deep"}]}),
    ("region_window", {"regions": TWO, "region_window": [0.5, 0.2]}),
    ("region_window[1]", {"regions": TWO, "region_window": [0.5, 2]}),
    ("region_window", {"regions": TWO, "region_window": [0.5]}),
    ("base_ratio", {"regions": TWO, "base_ratio": 1.5}),
)  # fmt: skip


@pytest.mark.parametrize(("param", "extra"), BAD)
def test_bad_places_are_refused_by_path(client: OpenAI, param: str, extra: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as refused:
        paint(client, **extra)
    assert refused.value.param == param
    assert len(refused.value.message) < 600


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("prompt", {}),
        ("prompt", {"prompt": PROMPT, "plan": plan()}),
        ("prompt", {"prompt": "  "}),
        ("planner", {"prompt": PROMPT, "planner": "oracle"}),
        ("planner", {"plan": plan(), "planner": "grammar"}),
        ("plan.schema_version", {"plan": {}}),
        ("plan.objects[0].high", {"plan": plan(objects=[{"name": "a", "box": BOX}])}),
        ("colour", {"prompt": PROMPT, "colour": 1}),
        ("size", {"prompt": PROMPT, "size": "3x"}),
    ],
)
def test_bad_requests_for_plans_are_refused(
    http: httpx2.Client, param: str, body: dict[str, Any]
) -> None:
    answer = http.post("/v1/plans", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
