import json

import pytest
from typer.testing import CliRunner

from cli.main import build_app
from core.errors import CheckpointError, InputError, UnknownNameError
from pipelines.spec import GenerationSpec
from pipelines.text_to_image import TextToImage


def call(*words):
    return CliRunner().invoke(build_app(), ["quantize", *map(str, words)], catch_exceptions=False)


def test_help_teaches_by_example():
    assert "Example" in call("--help").output


def test_methods_are_listed_with_what_they_are():
    output = call("--list-methods").output
    assert "mpq_plus" in output
    assert "round to nearest" in output


def test_wrong_words_are_refused_before_any_work(tmp_path):
    with pytest.raises(UnknownNameError, match="efficientdm"):
        call("--method", "efficientdn")
    with pytest.raises(InputError, match="1 to 8 bits, not 9"):
        call("--weights", 9)
    with pytest.raises(InputError, match="pattern=bits"):
        call("--keep", "proj_out")
    with pytest.raises(UnknownNameError, match="rank"):
        call("--set", "ranks=3")
    with pytest.raises(UnknownNameError, match="teacher"):
        call("teecher")
    for setting in ("num_calibration=0", "learning_rate=-1", "rank=0", "learning_rate=inf"):
        with pytest.raises(InputError, match=setting.partition("=")[0]):
            call("teacher", "--set", setting)
    with pytest.raises(InputError, match="cannot name a variant"):
        call("--publish-as", "../elsewhere")
    with pytest.raises(InputError, match="is a file"):
        call("--output", __file__)
    with pytest.raises(InputError, match="holds a pipeline already"):
        call("--output", "checkpoints/emoji-scenes")
    (tmp_path / "full" / "notes").mkdir(parents=True)
    with pytest.raises(InputError, match="is not empty"):
        call("--output", tmp_path / "full")
    for option in ("--run-dir", "--output"):
        with pytest.raises(InputError, match=f"{__file__} is a file"):
            call(option, f"{__file__}/below")
    with pytest.raises(InputError, match="would be lost"):
        call("rdd-4", "--publish-as", "rdd-4")
    with pytest.raises(InputError, match="cannot name a variant"):
        call("--publish-as", "")
    with pytest.raises(InputError, match="relation_share"):
        call("--set", "relation_share=nan")
    with pytest.raises(InputError, match="window 5: the model paints in 4 steps"):
        call("rdd-4", "--set", "window=5")
    for words in (("--steps", 0), ("--guidance", 0.5), ("--minutes", -1)):
        assert call(*words).exit_code == 2
    with pytest.raises(CheckpointError, match="There is no folder"):
        call("--model", tmp_path / "none")
    assert not (tmp_path / "runs").exists()


def test_a_published_variant_is_painted_as_its_parent_is(folder, tmp_path):
    parent = {"folder": "transformer", "steps": 2, "guidance": 1.0, "scheduler": "ddim"}
    parent |= {"guidance_rescale": 0.5, "regions": {"depth": "flat", "window": [0.0, 0.5]}}
    manifest = {"default": "teacher", "variants": {"teacher": parent}}
    (folder / "variants.json").write_text(json.dumps(manifest))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    done = call(
        *("teacher", "--model", folder, "--method", "minmax", "--recipe", "quick"),
        *("--set", "num_calibration=2", "--set", "num_rows=16", "--prompts", prompts),
        *("--run-dir", tmp_path / "run", "--publish-as", "low-bit"),
    )
    assert "Variant low-bit" in done.output
    published = TextToImage.load(folder, variant="low-bit", device="cpu")
    assert published.info.default_scheduler == "ddim"
    assert (published.info.default_steps, published.info.default_guidance) == (2, 1.0)
    assert published.info.bits == 4
    assert published.info.default_guidance_rescale == 0.5
    written = json.loads((folder / "variants.json").read_text())["variants"]["low-bit"]
    assert written["regions"] == parent["regions"]
    size = {"width": published.info.sizes[0][0], "height": published.info.sizes[0][1]}
    spec = GenerationSpec(prompt="a cat", num_steps=2, guidance_scale=1.0, **size)
    assert published.generate([spec])[0].image.size == published.info.sizes[0]


def test_a_run_that_was_killed_amid_a_line_goes_on_and_a_damaged_record_is_named(folder, tmp_path):
    prompts, run_dir = tmp_path / "prompts.txt", tmp_path / "run"
    prompts.write_text("a cat\n")
    words = ("--model", folder, "--method", "omq", "--recipe", "quick", "--run-dir", run_dir)
    words += ("--set", "num_calibration=2", "--set", "num_rows=16", "--prompts", prompts)
    assert call(*words).exit_code == 0
    plans = run_dir / "allocations.jsonl"
    whole = plans.read_text()
    plans.write_text(whole[:-40])
    assert call(*words).exit_code == 0
    *kept, again = plans.read_text().splitlines()
    *known, last = whole.splitlines()
    assert kept == known
    assert json.loads(again)["name"] == json.loads(last)["name"]
    plans.write_text(whole.replace('"name"', '"nome"', 1))
    with pytest.raises(CheckpointError, match=r"allocations\.jsonl is damaged"):
        call(*words)
    (run_dir / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        call(*words)
    prompts.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as text"):
        call(*words)
