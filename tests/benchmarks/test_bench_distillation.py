import json

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from benchmarks.bench_distillation import Models, main, unmeasured
from core.errors import InputError
from pipelines.store import open_checkpoint
from tests.distill.conftest import checkpoint, own_checkpoint  # noqa: F401 - fixtures
from training.publish import add_variant


def test_what_nobody_measured_is_null_and_what_somebody_did_stays(tmp_path):
    output = tmp_path / "distillation.json"
    output.write_text(json.dumps({"cifar10_distance_rdd_1": 3.5}))
    missing = unmeasured(output)
    assert set(missing.values()) == {None}
    assert "cifar10_distance_rdd_1" not in missing
    assert {"scenes_distance_pd_8_low", "judge_student4", "speed_ratio_1step"} <= missing.keys()
    assert len(unmeasured(None)) == len(missing) + 1


@pytest.mark.slow
def test_students_are_timed_beside_their_teacher_and_missing_ones_are_not(
    own_checkpoint,  # noqa: F811
    tmp_path,
    capsys,
):
    add_variant(
        own_checkpoint,
        "rdd-4",
        own_checkpoint / "transformer",
        {"steps": 4, "guidance": 1.0, "scheduler": "ddim", "parent": "teacher", "method": "rdd"},
    )
    assert open_checkpoint(own_checkpoint).info.variant == "teacher"
    output = tmp_path / "distillation.json"
    main(["--model", str(own_checkpoint), "--num-images", "1", "--output", str(output)])
    figures = json.loads(output.read_text())
    assert figures["speed_ratio_4step"] > 0
    assert figures["speed_ratio_1step"] is None
    assert figures["judge_teacher"] is None
    assert figures["command"].startswith("python -m benchmarks.bench_distillation")
    assert "ddim_50_images_per_s" in capsys.readouterr().out


def test_students_of_a_run_are_painted_with_their_own_weights(own_checkpoint, tmp_path):  # noqa: F811
    student = PixArtTransformer2DModel.from_pretrained(own_checkpoint / "transformer")
    with torch.no_grad():
        student.proj_out.bias.fill_(0.25)
    student.save_pretrained(tmp_path / "2-steps" / "student")
    models = Models(str(own_checkpoint), "teacher", "rdd", tmp_path)
    [(steps, painter)] = list(models.students())
    assert steps == 2
    assert painter.parts.transformer.proj_out.bias.unique().tolist() == [0.25]
    assert models.teacher().parts.transformer.proj_out.bias.unique().tolist() != [0.25]


def test_a_run_without_students_is_refused(own_checkpoint, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="no finished student"):
        Models(str(own_checkpoint), "teacher", "rdd", tmp_path)
