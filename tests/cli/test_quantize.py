import json
import shutil
from pathlib import Path

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


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("--method", "efficientdn"), UnknownNameError, "efficientdm"),
        (("teecher",), UnknownNameError, "teacher"),
        (("--set", "ranks=3"), UnknownNameError, "rank"),
        (("--weights", 9), InputError, "1 to 8 bits, not 9"),
        (("--keep", "proj_out"), InputError, "pattern=bits"),
        (("--set", "num_calibration=0"), InputError, "num_calibration 0: give 1"),
        (("--set", "num_rows=1"), InputError, "num_rows 1: give 2"),
        (("--set", "rank=0"), InputError, "rank 0: give 1"),
        (("--set", "learning_rate=-1"), InputError, "learning_rate"),
        (("--set", "learning_rate=inf"), InputError, "learning_rate"),
        (("--set", "relation_share=nan"), InputError, "relation_share"),
        (("--set", "seed=99999999999999999999"), InputError, "seed 9+: give 0 to"),
        (("--set", "relation=foo"), InputError, "relation"),
        (("--set", "window=5"), InputError, "window 5: the model paints in 4 steps"),
        (("--prompts", "none.txt"), InputError, "cannot be read as text"),
        (("--publish-as", "../elsewhere"), InputError, "cannot name a variant"),
        (("--publish-as", ""), InputError, "cannot name a variant"),
        (("--publish-as", "x" * 300), InputError, "up to 64 letters"),
        (("--publish-as", "rdd-4"), InputError, "would be lost"),
        (("--output", __file__), InputError, "is a file"),
        (("--output", f"{__file__}/below"), InputError, "is a file"),
        (("--output", "checkpoints/emoji-scenes"), InputError, "holds a pipeline already"),
        (("--output", Path(__file__).parent), InputError, "is not empty"),
        (("--run-dir", f"{__file__}/below"), InputError, "is a file"),
        (("--run-dir", ""), InputError, "a folder of its own"),
        (("--model", "none"), CheckpointError, "There is no folder"),
    ],
    ids=str,
)
def test_wrong_words_are_refused_before_any_work(words, error, says, tmp_path):
    run_dir = () if "--run-dir" in words else ("--run-dir", tmp_path / "run")
    variant = () if "teecher" in words else ("rdd-4",)
    with pytest.raises(error, match=says):
        call(*variant, *run_dir, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [("--steps", 0), ("--guidance", 0.5), ("--minutes", -1)])
def test_numbers_out_of_range_are_wrong_usage(words):
    assert call(*words).exit_code == 2


def test_a_published_variant_is_painted_as_its_parent_is(folder, tmp_path):
    folder = Path(shutil.copytree(folder, tmp_path / "model"))  # it is written to
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
    first = json.loads(known[0])
    wrong = (
        {"nome": first.pop("name")},
        {"name": "nowhere"},
        {"widths": first["widths"][1:]},
        {"widths": [3.5] * len(first["widths"])},
        {"widths": [9] * len(first["widths"])},
        {"share": "x"},
    )
    for change in wrong:
        line = json.dumps({"name": json.loads(known[0])["name"]} | first | change)
        plans.write_text(line + "\n" if "nome" not in change else json.dumps(change) + "\n")
        with pytest.raises(CheckpointError, match=r"allocations\.jsonl is damaged"):
            call(*words)
    plans.write_text(whole)
    prompts.write_text("a dog\n")
    with pytest.raises(CheckpointError, match="of a run with other prompts"):
        call(*words)
    (run_dir / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        call(*words)
    prompts.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as text"):
        call(*words)


def broken(folder, change, tmp_path):
    """A copy of a folder whose float transformer's config.json says something else."""
    copy = Path(shutil.copytree(folder, tmp_path / "broken"))
    (copy / "variants.json").unlink(missing_ok=True)
    file = copy / "transformer" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | change))
    return copy


@pytest.mark.parametrize(
    "change", [{"num_layers": 1}, {"num_layers": 9}, {"_class_name": "Bogus"}], ids=str
)
def test_a_folder_that_does_not_fit_together_is_refused_by_name(folder, change, tmp_path):
    copy = broken(folder, change, tmp_path)
    with pytest.raises(CheckpointError, match=f"{copy}"):
        call("--model", copy, "--method", "minmax", "--run-dir", tmp_path / "run")


def test_a_file_that_is_cut_off_is_told_by_its_name(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "cut"))
    (copy / "variants.json").unlink(missing_ok=True)
    for part in ("transformer/diffusion_pytorch_model", "text_encoder/model"):
        file = copy / f"{part}.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:1000])
        with pytest.raises(CheckpointError, match=f"{file} is truncated or corrupt"):
            call("--model", copy, "--method", "minmax", "--run-dir", tmp_path / "run")
        file.write_bytes(whole)


def test_a_whole_pipeline_is_written_with_how_it_paints(folder, tmp_path):
    prompts, output = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("a cat\n")
    done = call(
        *("--model", folder, "--method", "minmax", "--recipe", "quick", "--steps", 3),
        *("--set", "num_calibration=2", "--set", "num_rows=16", "--prompts", prompts),
        *("--guidance", 1, "--run-dir", tmp_path / "run", "--output", output),
    )
    assert f"Pipeline: {output}" in done.output
    info = TextToImage.load(output, device="cpu").info
    assert (info.variant, info.default_steps, info.default_guidance) == ("low-bit", 3, 1.0)
    assert info.bits == 4
