"""Students of several methods, step counts and seeds, as distances from the same real pictures."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from torch import Tensor, nn

from core.errors import CheckpointError, InputError
from core.progress import track
from distill.stages import Stage
from evaluation.distances import Distance, frechet_distance, kernel_distance
from evaluation.intervals import mean_interval
from training.networks import weights_digest
from training.recorders import read_record

# What a method is called in the record of figures.
SHORT_NAMES: Mapping[str, str] = {"progressive": "pd", "rcfd": "rcfd", "rdd": "rdd"}

Paint = Callable[[Path, int], Tensor]
PaintTeacher = Callable[[Stage], Tensor]


def runs_from(choices: Sequence[str]) -> dict[str, list[Path]]:
    """Return "rdd=runs/a" and the like as runs by method; a method may have several.

    Args:
        choices: METHOD=FOLDER, as the command takes them.

    Raises:
        InputError: If one has another form or is given twice. A folder that holds no student of
            that method is refused by name, too.
    """
    runs: dict[str, list[Path]] = {}
    for choice in choices:
        method, equals, folder = choice.partition("=")
        if not equals or not method:
            raise InputError(f"{choice!r} is not of the form METHOD=FOLDER.", param="run")
        _check_run(method, Path(folder))
        if Path(folder).resolve() in (each.resolve() for each in chain(*runs.values())):
            raise InputError(f"{folder} is named twice: give each run once.", param="run")
        runs.setdefault(method, []).append(Path(folder))
    return runs


def _check_run(method: str, folder: Path) -> None:
    if not (folder / "plan.json").is_file():
        raise InputError(f"{folder} holds no distillation: it has no plan.json.", param="run")
    plan = read_record(folder / "plan.json")
    if not plan.get("teacher") or not plan.get("stages"):
        raise CheckpointError(f"{folder / 'plan.json'} names no teacher or no stages.", param="run")
    if plan.get("method", method) != method:
        raise InputError(
            f"{folder} was taught by {plan['method']}, not by {method}: write "
            f"{plan['method']}={folder}.",
            param="run",
        )
    if not _students(folder):
        raise InputError(f"{folder} holds no finished student.", param="run")


def _students(folder: Path) -> list[tuple[int, Path]]:
    """Steps and folder of each finished student of a run."""
    found = [
        (each.parent.name.removesuffix("-steps"), each) for each in folder.glob("*-steps/student")
    ]
    return sorted((int(steps), each) for steps, each in found if steps.isdecimal())


def distance_table(
    runs: Mapping[str, Sequence[Path]], real: Tensor, paint: Paint
) -> dict[str, dict[int, tuple[Distance, Distance]]]:
    """Return Frechet and kernel distance of every method at every number of steps.

    Args:
        runs: Folders of distillations, by method; one per seed.
        real: Features of real pictures.
        paint: Makes features of painted pictures from a student's folder and its steps.

    Returns:
        By method and steps. With several runs the value is their mean, and the interval that of
        the mean over runs (Student's t, 95 %); with one run it is that run's own.
    """
    found = [
        (method, num_steps, student)
        for method, folders in runs.items()
        for folder in folders
        for num_steps, student in _students(folder)
    ]
    measured: dict[str, dict[int, list[tuple[Distance, Distance]]]] = {}
    for method, num_steps, student in track(found, "Measuring students", unit="students"):
        painted = paint(student, num_steps)
        pair = (frechet_distance(real, painted), kernel_distance(real, painted))
        measured.setdefault(method, {}).setdefault(num_steps, []).append(pair)
    return {
        method: {
            num_steps: (over_runs([p[0] for p in pairs]), over_runs([p[1] for p in pairs]))
            for num_steps, pairs in sorted(by_steps.items(), reverse=True)
        }
        for method, by_steps in measured.items()
    }


def teacher_row(
    runs: Mapping[str, Sequence[Path]], teacher: nn.Module, real: Tensor, paint: PaintTeacher
) -> dict[str, dict[int, tuple[Distance, Distance]]]:
    """Return the distances of the pictures that the students were taught to reach, as a row.

    Args:
        runs: Folders of distillations, by method, of one teacher.
        teacher: That teacher.
        real: Features of real pictures.
        paint: Makes features of the teacher's pictures as its first student saw them.

    Raises:
        InputError: If runs had another teacher, or had it paint otherwise than each other.
    """
    told = {
        folder: (plan["teacher"], plan["stages"][0])
        for folders in runs.values()
        for folder in folders
        for plan in [read_record(folder / "plan.json")]
    }
    name, stage = weights_digest(teacher), next(iter(told.values()))[1]
    same = ("teacher_steps", "guidance", "guidance_rescale")
    for folder, (taught_by, other) in told.items():
        if taught_by != name or any(other[key] != stage[key] for key in same):
            raise InputError(
                f"{folder} was taught otherwise: by another teacher than the one given, or by "
                "other steps or guidance than the runs before it. Give runs of this one teacher.",
                param="run",
            )
    taught = Stage(num_steps=stage["num_steps"], **{key: stage[key] for key in same})
    [painted] = [paint(each) for each in track([taught], "Measuring the teacher", unit="teachers")]
    pair = (frechet_distance(real, painted), kernel_distance(real, painted))
    return {"teacher": {taught.teacher_steps: pair}}


def over_runs(distances: Sequence[Distance]) -> Distance:
    """Return the mean over runs with its interval; one run keeps its own interval.

    Args:
        distances: At least one.
    """
    if len(distances) == 1:
        return distances[0]
    mean = mean_interval([each.value for each in distances])
    return Distance(value=mean.value, low=mean.low, high=mean.high)


def figures(
    ground: str, table: Mapping[str, Mapping[int, tuple[Distance, Distance]]]
) -> dict[str, float]:
    """Return the table as flat figures for the record.

    Args:
        ground: "scenes" or "cifar10".
        table: What `distance_table` returned.
    """
    flat: dict[str, float] = {}
    for method, by_steps in table.items():
        short = SHORT_NAMES.get(method, method)
        for num_steps, (frechet, kernel) in by_steps.items():
            name = f"{ground}_distance_{short}_{num_steps}"
            flat |= {name: frechet.value, f"{name}_low": frechet.low, f"{name}_high": frechet.high}
            flat[f"{ground}_kernel_{short}_{num_steps}"] = kernel.value
    return flat
