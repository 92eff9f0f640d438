import hashlib
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from cli.generate import _keep, check_output, contact_sheet, generate, parse_size
from core.errors import CheckpointError, ConfigError, InputError
from llm_prompting.grammar_backend import plan_by_grammar
from pipelines.png import read_png_spec
from pipelines.store import open_checkpoint

PROMPT = "a red apple left of a blue cat, watercolor"


def test_a_picture_is_written_with_its_making_and_over_an_old_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.png"
    output.write_bytes(b"old")
    generate(PROMPT, output=output, seed=7, steps=3, model=str(folder), device="cpu")
    first = output.read_bytes()
    origin = read_png_spec(first)
    assert (origin.spec.prompt, origin.spec.seed, origin.spec.num_steps) == (PROMPT, 7, 3)
    generate(PROMPT, output=output, seed=7, steps=3, model=str(folder), device="cpu")
    assert hashlib.sha256(output.read_bytes()).digest() == hashlib.sha256(first).digest()
    told = capsys.readouterr().err
    assert "3/3 steps" in told
    assert "Seed 7" in told


def test_several_pictures_get_their_seeds_into_their_names(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.png"
    generate(PROMPT, output=output, seed=7, steps=1, num_images=3, model=str(folder), device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-7.png", "x-8.png", "x-9.png"]
    assert read_png_spec((tmp_path / "x-8.png").read_bytes()).spec.seed == 8


def test_a_grid_is_one_sheet(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.png"
    generate(
        PROMPT, output=output, steps=1, num_images=3, grid=True, model=str(folder), device="cpu"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    with Image.open(output) as sheet:
        assert sheet.size == (4 + 2 * 132, 4 + 2 * 132)


def test_a_sheet_shows_its_pictures_row_by_row() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 9, 9), (1, 2, 3)]
    sheet = contact_sheet([Image.new("RGB", (10, 6), colour) for colour in colours], gap=2)
    assert sheet.size == (2 + 3 * 12, 2 + 2 * 8)
    assert [sheet.getpixel((3 + 12 * column, 3)) for column in range(3)] == colours[:3]
    assert [sheet.getpixel((3 + 12 * column, 11)) for column in range(2)] == colours[3:]
    assert sheet.getpixel((37, 15)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["x.jpg", "x", "missing/x.png"])
def test_a_place_where_no_png_fits_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        check_output(tmp_path / name)


@pytest.mark.parametrize("text", ["128", "128x", "x", "axb", "-1x5", "128x128x3"])
def test_a_size_that_is_none_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"[Ss]ize"):
        parse_size(text, open_checkpoint(folder).info)


def test_what_the_model_cannot_do_is_refused(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.png"
    with pytest.raises(InputError, match="128x128"):
        generate(PROMPT, output=output, size="64x64", model=str(folder), device="cpu")
    with pytest.raises(CheckpointError, match="no folder"):
        generate(PROMPT, output=output, model=str(tmp_path / "missing"))
    assert not output.exists()


def test_a_planned_picture_can_be_painted_again_from_its_file(folder: Path, tmp_path: Path) -> None:
    output, again = tmp_path / "x.png", tmp_path / "y.png"
    common = {"seed": 7, "steps": 3, "model": str(folder), "device": "cpu"}
    generate(PROMPT, output=output, planner="grammar", depth="release", base_ratio=0.25, **common)
    spec = read_png_spec(output.read_bytes()).spec
    assert [region.high for region in spec.regions] == ["an apple", "a cat"]
    assert (spec.depth, spec.base_share) == ("release", 0.25)
    generate(PROMPT, output=again, plan=output, depth="release", base_ratio=0.25, **common)
    assert again.read_bytes() == output.read_bytes()


def test_a_plan_from_a_file_is_checked_by_path(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan = plan_by_grammar(PROMPT).model_dump(mode="json", exclude_none=True)
    plan["objects"][1]["box"]["x1"] = 2.0
    file.write_text(json.dumps(plan), "utf-8")
    for content, told in ((None, "x1"), ("{", "not JSON"), ("[]", "JSON object")):
        if content is not None:
            file.write_text(content, "utf-8")
        with pytest.raises(InputError, match=told):
            generate(PROMPT, output=tmp_path / "x.png", plan=file, model=str(folder))
    with pytest.raises(InputError, match="no file"):
        generate(PROMPT, output=tmp_path / "x.png", plan=tmp_path / "none", model=str(folder))
    with pytest.raises(InputError, match="either"):
        generate(PROMPT, output=tmp_path / "x.png", plan=file, planner="grammar")


def test_knobs_of_regions_without_regions_are_refused(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.png"
    for knob in ({"depth": "flat"}, {"region_window": (0.0, 0.5)}, {"base_ratio": 0.1}):
        with pytest.raises(InputError, match="acts on regions alone"):
            generate(PROMPT, output=output, model=str(folder), device="cpu", **knob)
    for depth, told in (("[{]", "no JSON"), ("[{}]", "2 cross-attention"), ("deep", "flat")):
        with pytest.raises(InputError, match=told):
            generate(PROMPT, output=output, planner="grammar", depth=depth, model=str(folder))


def test_a_picture_whose_file_cannot_be_written_is_kept_elsewhere(tmp_path: Path) -> None:
    place = tmp_path / "gone" / "x.png"
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        _keep(b"picture", place)
    (kept,) = re.findall(r"The picture is in (\S+)\.$", caught.value.message)
    assert Path(kept).read_bytes() == b"picture"


def test_a_folder_is_no_file_to_paint_into(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match="is a folder: name a file in it"):
        check_output(tmp_path / "x.png")
