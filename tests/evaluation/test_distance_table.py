import json

import pytest
import torch

from core.errors import CheckpointError, InputError, NumericsError
from core.seeding import torch_generator
from evaluation.distance_table import (
    distance_table,
    figures,
    over_runs,
    runs_from,
    teacher_row,
)
from evaluation.distances import Distance, frechet_distance, kernel_distance
from training.networks import weights_digest


def begun(folder, *steps, method="rdd"):
    folder.mkdir()
    for count in steps:
        (folder / f"{count}-steps" / "student").mkdir(parents=True)
    plan = {"method": method, "teacher": "abc", "stages": [{"num_steps": 4}]}
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def test_runs_are_gathered_by_method(tmp_path):
    one, two = begun(tmp_path / "one", 4), begun(tmp_path / "two", 4)
    three = begun(tmp_path / "three", 4, method="progressive")
    runs = runs_from([f"rdd={one}", f"progressive={three}", f"rdd={two}"])
    assert runs == {"rdd": [one, two], "progressive": [three]}
    for wrong in ("rdd", f"={one}", f"rdd={tmp_path / 'none'}"):
        with pytest.raises(InputError, match=r"METHOD=FOLDER|no distillation"):
            runs_from([wrong])


def test_runs_that_would_tell_a_wrong_tale_are_refused(tmp_path):
    one, empty = begun(tmp_path / "one", 4), begun(tmp_path / "empty")
    other = begun(tmp_path / "other", 4, method="progressive")
    with pytest.raises(InputError, match="named twice"):
        runs_from([f"rdd={one}", f"rdd={one}"])
    with pytest.raises(InputError, match="was taught by progressive, not by rdd"):
        runs_from([f"rdd={other}"])
    with pytest.raises(InputError, match="no finished student"):
        runs_from([f"rdd={empty}"])
    for damaged, says in (("{", "is damaged"), ("[]", "holds no object"), ("{}", "no teacher")):
        (one / "plan.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=says):
            runs_from([f"rdd={one}"])


def test_broken_pictures_have_no_distance():
    real = torch.randn(40, 3, generator=torch_generator(0))
    for measure in (frechet_distance, kernel_distance):
        with pytest.raises(NumericsError, match="painted pictures are not finite"):
            measure(real, real * float("nan"))


def test_one_run_keeps_its_interval_and_three_give_that_of_their_mean():
    alone = Distance(value=2.0, low=1.5, high=2.5)
    assert over_runs([alone]) == alone
    three = [Distance(value=value, low=0.0, high=9.0) for value in (1.0, 2.0, 3.0)]
    mean = over_runs(three)
    assert mean.value == pytest.approx(2.0)
    # Student's t at 2 degrees of freedom, standard deviation 1 over three runs
    assert mean.high - mean.value == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_the_better_student_is_nearer_and_figures_are_flat(tmp_path):
    runs = {
        "progressive": [begun(tmp_path / "pd", 4, 1)],
        "rdd": [begun(tmp_path / f"rdd{seed}", 4, 1) for seed in (0, 1)],
    }

    def draw(shift, seed):
        return torch.randn(60, 3, generator=torch_generator(seed)) + shift

    def paint(folder, num_steps):
        is_rdd = "rdd" in str(folder)
        return draw((0.2 if is_rdd else 1.0) / num_steps, seed=len(str(folder)) + num_steps)

    table = distance_table(runs, draw(0, seed=1), paint)
    assert list(table["rdd"]) == [4, 1]
    assert table["rdd"][1][0].value < table["progressive"][1][0].value
    flat = figures("cifar10", table)
    assert flat["cifar10_distance_pd_1"] == table["progressive"][1][0].value
    assert {"cifar10_distance_rdd_4_low", "cifar10_distance_rdd_4_high"} <= flat.keys()


TEACHER = torch.nn.Linear(1, 1)


def planned(folder, **stage):
    folder.mkdir()
    first = {"num_steps": 8, "teacher_steps": 16, "guidance": 4.0, "guidance_rescale": 0.7}
    (folder / "plan.json").write_text(
        json.dumps(
            {"teacher": stage.pop("teacher", weights_digest(TEACHER)), "stages": [first | stage]}
        )
    )
    return folder


def test_the_teacher_is_measured_as_its_first_student_saw_it(tmp_path):
    runs = {"rdd": [planned(tmp_path / "one")], "rcfd": [planned(tmp_path / "two", num_steps=4)]}
    real = torch.randn(40, 3, generator=torch_generator(0))
    asked = []

    def paint(stage):
        asked.append(stage)
        return real + 1

    row = teacher_row(runs, TEACHER, real, paint)
    assert row["teacher"][16][0].value == pytest.approx(3, rel=1e-3)
    assert (asked[0].teacher_steps, asked[0].guidance, asked[0].guidance_rescale) == (16, 4, 0.7)
    assert "scenes_distance_teacher_16" in figures("scenes", row)


@pytest.mark.parametrize("other", [{"teacher": "xyz"}, {"teacher_steps": 32}, {"guidance": 2.0}])
def test_runs_of_two_teachers_are_not_put_into_one_table(tmp_path, other):
    runs = {"rdd": [planned(tmp_path / "one"), planned(tmp_path / "two", **other)]}
    with pytest.raises(InputError, match="two was taught otherwise"):
        teacher_row(runs, TEACHER, torch.zeros(2, 1), lambda _: torch.zeros(2, 1))


def test_a_teacher_that_taught_none_of_the_runs_is_refused(tmp_path):
    runs = {"rdd": [planned(tmp_path / "one")]}
    with pytest.raises(InputError, match="another teacher than the one given"):
        teacher_row(runs, torch.nn.Linear(2, 1), torch.zeros(2, 1), lambda _: torch.zeros(2, 1))
