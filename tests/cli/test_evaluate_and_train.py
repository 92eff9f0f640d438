import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.main import build_app
from core.errors import CheckpointError, InputError, UnknownNameError
from pipelines.text_to_image import TextToImage


def call(*words):
    return CliRunner().invoke(build_app(), [str(word) for word in words], catch_exceptions=False)


def test_contact_sheet_shows_the_world(tmp_path):
    done = call("evaluate", "contact-sheet", tmp_path / "sheet.png", "--num-scenes", 12)
    assert done.exit_code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (10 * 128, 2 * 128)


def test_a_folder_that_is_not_there_is_said_before_any_work(tmp_path):
    with pytest.raises(InputError, match="make it first"):
        call("evaluate", "contact-sheet", tmp_path / "no" / "sheet.png")
    with pytest.raises(InputError, match="make it first"):
        call("evaluate", "model", "--sheet", tmp_path / "no" / "sheet.png")


@pytest.mark.parametrize("command", ["model", "regional", "probe"])
@pytest.mark.parametrize(
    ("option", "value", "says"), [("--steps", 0, "1 to 1000"), ("--guidance", 0.5, "from 1")]
)
def test_impossible_numbers_are_said_before_weights_are_loaded(
    command, option, value, says, monkeypatch
):
    monkeypatch.setattr(TextToImage, "load", None)  # would end in another error
    with pytest.raises(InputError, match=says):
        call("evaluate", command, option, value)


@pytest.mark.parametrize("variants", [["rdd-4"], ["rdd-4", "rdd-4"], ["low-bit", "rdd-4", "rdd-4"]])
def test_fewer_than_two_variants_are_nothing_to_compare(variants):
    with pytest.raises(InputError, match="at least two, each once"):
        call("evaluate", "compare", *variants)


def test_unknown_variants_and_detectors_are_named_before_weights_are_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(TextToImage, "load", None)  # would end in another error
    with pytest.raises(UnknownNameError, match=r"low-bi.*Did you mean 'low-bit'"):
        call("evaluate", "compare", "rdd-4", "low-bi")
    with pytest.raises(CheckpointError, match="holds no detector"):
        call("evaluate", "compare", "rdd-4", "low-bit", "--detector", tmp_path)
    (tmp_path / "figures.json").write_text("[]")
    with pytest.raises(InputError, match=r"figures\.json holds no JSON object"):
        call("evaluate", "compare", "rdd-4", "low-bit", "--output", tmp_path / "figures.json")


def test_variants_are_compared_on_the_same_prompts_and_the_gap_is_written(tmp_path):
    output = tmp_path / "figures.json"
    words = ("rdd-4", "low-bit", "--num-prompts", 1, "--output", output)
    done = call("evaluate", "compare", *words)
    assert done.exit_code == 0
    assert "points behind rdd-4" in done.stdout
    figures = json.loads(output.read_text())
    right = [figures["detector_rdd-4"], figures["detector_low-bit"]]
    gap = figures["detector_low-bit_behind_rdd-4"]
    assert gap == pytest.approx(right[0] - right[1])
    assert figures["detector_low-bit_behind_rdd-4_low"] <= gap
    assert gap <= figures["detector_low-bit_behind_rdd-4_high"]
    assert 0 <= figures["detector_rdd-4_counting"] <= 1


def test_the_judge_is_measured_and_its_figures_are_merged(tmp_path):
    output = tmp_path / "teacher.json"
    output.write_text(json.dumps({"first_image_s": 1.5}))
    done = call("evaluate", "judge", "--num-scenes", 1, "--output", output)
    assert done.exit_code == 0
    assert "false_accept" in done.output
    figures = json.loads(output.read_text())
    assert figures["first_image_s"] == 1.5
    assert figures["judge_false_accept"] == 0.0
    assert 0 <= figures["judge_scene_exact_clean"] <= 1


def test_training_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(UnknownNameError, match="cpu, gpu"):
        call("train", "autoencoder", "--recipe", "tpu", "--run-dir", tmp_path)
    with pytest.raises(CheckpointError, match="fewstroke train autoencoder"):
        call("train", "teacher", "--autoencoder", tmp_path / "none", "--run-dir", tmp_path)
    with pytest.raises(CheckpointError, match="fewstroke train autoencoder"):
        call("evaluate", "autoencoder", "--autoencoder", tmp_path / "none")


@pytest.mark.parametrize("group", ["train", "evaluate"])
def test_help_teaches_by_example(group):
    for command in {
        "train": ("autoencoder", "teacher"),
        "evaluate": ("judge", "model", "autoencoder", "baselines"),
    }[group]:
        assert "Example" in call(group, command, "--help").output
