import json

import pytest

from benchmarks.bench_distillation import main, unmeasured
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
    assert figures["speed_ratio_4step"] > 2
    assert figures["speed_ratio_1step"] is None
    assert figures["judge_teacher"] is None
    assert figures["command"].startswith("python -m benchmarks.bench_distillation")
    assert "ddim_50_images_per_s" in capsys.readouterr().out
