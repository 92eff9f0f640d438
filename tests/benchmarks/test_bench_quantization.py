import json

import pytest
import torch
from diffusers import AutoModel
from PIL import Image

from benchmarks.bench_quantization import METHODS, PRECISIONS, main, unmeasured
from benchmarks.quantization_table import _means, same_learning
from distill.classifier import latent_classifier
from distill.features import save_classifier
from evaluation.detector import Detector, DetectorShape, save_detector
from evaluation.predicates import TAGS
from quant.recipes import SETTINGS
from tests.distill.conftest import checkpoint, own_checkpoint  # noqa: F401 - fixtures
from training.data import encoder_name
from training.publish import add_variant


def test_what_was_not_measured_is_null_and_what_was_is_kept():
    figures = unmeasured({"file_ratio": 1.02})
    assert "file_ratio" not in figures
    assert figures["distance_mpq_w2a4_low"] is None
    assert len(figures) == 3 * len(METHODS) * len(PRECISIONS) + 3
    assert json.dumps(figures)


def test_at_eight_bits_methods_that_only_move_bits_are_one():
    cpu = SETTINGS["cpu"]
    assert same_learning("mpq_plus", "w8a8", METHODS, cpu) == "trd"
    assert same_learning("omq", "w8a8", METHODS, cpu) == "efficientdm"
    assert same_learning("omq", "w8a8", ("omq", "mpq"), cpu) == "omq"
    for apart in ("minmax", "svdquant"):
        assert same_learning(apart, "w8a8", METHODS, cpu) == apart
    assert [same_learning(each, "w4a8", METHODS, cpu) for each in METHODS] == list(METHODS)
    # without learning one of them smooths and the other does not
    assert same_learning("omq", "w8a8", METHODS, SETTINGS["quick"]) == "omq"


def test_several_runs_give_means_with_intervals_and_one_run_gives_none():
    rows = [
        {"features_to_float": x, "psnr_to_float_db": 20.0, "kernel": 0.0, "stored_mb": 2.0}
        for x in (1.0, 2.0, 3.0)
    ]
    found = _means("mpq_w4a8", rows)
    assert found["features_to_float_mpq_w4a8"] == 2
    # Student's t at 2 degrees of freedom, standard deviation 1 over three runs
    assert found["features_to_float_mpq_w4a8_high"] == pytest.approx(2 + 4.3027 / 3**0.5, rel=1e-4)
    assert found["stored_mb_mpq_w4a8"] == 2
    assert set(_means("mpq_w4a8", rows[:1])) == {f"{key}_mpq_w4a8" for key in rows[0]}


def detector_of(folder):
    """One that has learned nothing, of the checkpoint's autoencoder."""
    encoder = encoder_name(AutoModel.from_pretrained(str(folder / "vae")))
    return Detector(DetectorShape(channels=12, width=16, trained_on=encoder))


def words_of_a_table(checkpoint, folder, *precisions):  # noqa: F811
    """A command line for a small table, measured by networks that have learned nothing."""
    torch.manual_seed(0)
    classifier = latent_classifier(channels=12, widths=(8,), num_blocks=1, trained_on="abc")
    measures = save_classifier(classifier, folder / "classifier", metrics={})
    judge = save_detector(detector_of(checkpoint), folder / "detector", metrics={})
    words = ["table", "--model", str(checkpoint), "--features", str(measures)]
    words += ["--run-dir", str(folder / "table"), "--recipe", "quick", "--num-images", "16"]
    words += ["--method", "minmax", "--seed", "0", "--num-judged", "1", "--judge", str(judge)]
    words += ["--output", str(folder / "quantization.json")]
    return words + [word for bits in precisions for word in ("--precision", bits)]


@pytest.mark.slow
def test_fewer_bits_are_farther_away_and_what_was_measured_is_not_measured_again(
    own_checkpoint,  # noqa: F811
    tmp_path,
    capsys,
):
    output = tmp_path / "quantization.json"
    words = words_of_a_table(own_checkpoint, tmp_path, "w8a8", "w2a4")
    words += ["--picture", str(tmp_path / "widths.png")]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    table = json.loads((tmp_path / "table" / "table.json").read_text())
    eight, two = (table[f"minmax_{bits}"][0] for bits in ("w8a8", "w2a4"))
    assert eight["psnr_to_float_db"] > two["psnr_to_float_db"] + 10
    assert eight["features_to_float"] < two["features_to_float"]
    figures = json.loads(output.read_text())
    assert figures["distance_minmax_w8a8"] == eight["frechet"]["value"]
    assert figures["distance_mpq_w8a8"] is None
    assert set(two["judged"]) == set(TAGS)
    hits, tried = (sum(part) for part in zip(*two["judged"].values(), strict=True))
    assert tried >= len(TAGS)
    assert figures["right_minmax_w2a4"] == hits / tried
    assert figures["right_minmax_w2a4_low"] <= figures["right_minmax_w2a4"] < 1
    hits, tried = two["judged"]["counting"]
    assert figures["right_minmax_w2a4_counting"] == hits / tried
    assert figures["kernel_minmax_w2a4"] == two["kernel"]

    with Image.open(tmp_path / "widths.png") as picture:
        assert picture.height >= 3 * 128 < picture.width

    for file in (tmp_path / "table").glob("*/measured-16.json"):
        row = json.loads(file.read_text())
        file.write_text(json.dumps(row | {"kernel": 7.0}))
    with pytest.raises(SystemExit):
        main(words)
    again = json.loads((tmp_path / "table" / "table.json").read_text())
    assert again["minmax_w2a4"][0]["kernel"] == 7.0


@pytest.mark.slow
def test_a_published_variant_is_measured_like_the_cell_it_is_a_copy_of(
    own_checkpoint,  # noqa: F811
    tmp_path,
):
    words = [*words_of_a_table(own_checkpoint, tmp_path, "w8a8"), "--num-judged", "0"]
    with pytest.raises(SystemExit):
        main(words)
    made = tmp_path / "table" / "minmax-w8a8-0" / "transformer"
    add_variant(own_checkpoint, "copy", made, {"steps": 4, "guidance": 4.0, "bits": 8})
    with pytest.raises(SystemExit):
        main([*words, "--published", "copy"])
    figures = json.loads((tmp_path / "quantization.json").read_text())
    assert figures["features_to_float_published"] == pytest.approx(
        figures["features_to_float_minmax_w8a8"], rel=1e-3
    )
    assert figures["distance_published_low"] <= figures["distance_published"]
