import json
from pathlib import Path

import pytest
from PIL import Image

from cli.plan import draw, plan, read_aspect
from core.errors import ConfigError, InputError, UnknownNameError
from llm_prompting.grammar_backend import plan_by_grammar
from llm_prompting.plan import PlannedObject, parse_plan

PROMPT = "two small green frogs above a large pink cake, watercolor, no cats"


def test_the_table_shows_words_and_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    plan(PROMPT)
    shown = capsys.readouterr().out
    for word in ("two frogs above a cake", "small, green, watercolor", "a cake", "cats"):
        assert word in shown


def test_json_is_the_plan_that_the_api_reads(capsys: pytest.CaptureFixture[str]) -> None:
    plan(PROMPT, as_json=True, aspect="4:3")
    shown = parse_plan(json.loads(capsys.readouterr().out))
    assert shown == plan_by_grammar(PROMPT, aspect=4 / 3)


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    plan("a cat left of a dog", output=tmp_path / "x.png", aspect="2:1")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (768, 384)
    made = plan_by_grammar("a cat left of a dog")
    picture = draw(made)
    colors = set()
    for thing in made.objects:
        center = (round(768 * (thing.box.x0 + thing.box.x1) / 2), round(768 * thing.box.y1) - 10)
        colors.add(picture.getpixel(center))
    assert len(colors) == 2
    assert picture.getpixel((2, 2)) not in colors


def test_masks_and_words_of_any_script_are_drawn_without_a_crash() -> None:
    made = plan_by_grammar("\u4e00\u53ea\u732b " * 30)
    masked = PlannedObject(name="cat", high="a cat", mask="iVBORw0KGgo=")
    assert draw(made.model_copy(update={"objects": (*made.objects, masked)})).size == (768, 768)


def test_what_went_otherwise_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    plan("a cat", planner="openai", llm_model="m", llm_url="http://127.0.0.1:9/v1")
    assert "fallback: openai: connection" in capsys.readouterr().out
    plan("I dreamed of nothing")
    assert "note: not understood" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "1", "1:0", "0:1", "a:b", "9:1", "1:9", "-1:1", "1e9:1"])
def test_shapes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_aspect(text)
    assert caught.value.param == "aspect"


def test_shapes_are_read_in_either_way_of_writing() -> None:
    assert read_aspect("16:9") == read_aspect("1600x900") == 16 / 9


def test_an_unknown_planner_and_a_missing_model_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Known: grammar, openai"):
        plan("a cat", planner="gpt")
    with pytest.raises(ConfigError, match="--llm-model"):
        plan("a cat", planner="openai")


def test_the_command_is_mounted(fewstroke) -> None:
    done = fewstroke("plan", "a cat above a dog", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["objects"]) == 2
    refused = fewstroke("plan", "a cat", "--aspect", "9:1")
    assert refused.returncode == 2
    assert "aspect is" in refused.stderr
