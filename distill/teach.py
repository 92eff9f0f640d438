"""One distillation, from a teacher to its last student. Read `teach` first."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from accelerate import PartialState
from diffusers import ModelMixin
from torch import nn

from core.devices import best_device
from core.errors import CheckpointError
from core.folders import make_folder, refuse_file
from distill.noise import NoiseSchedule
from distill.stages import Stage
from distill.student import StudentMethod
from distill.tasks import Task
from training.loop import LoopConfig, run
from training.method import Sampler, Source
from training.networks import load_like, weights_digest
from training.recorders import read_record, write_run_record

MakeMethod = Callable[[nn.Module, nn.Module, Stage], StudentMethod]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a distillation stands on.

    Attributes:
        teacher: A diffusers network; copied, never moved.
        task: What is denoised and what is heard.
        noise: The teacher's schedule.
        source: What it was trained on, or the like.
        draws: Makes what draws pictures of a student of so many steps.
    """

    teacher: ModelMixin
    task: Task
    noise: NoiseSchedule
    source: Source
    draws: Callable[[int], Sampler]


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """A student that was taught to the end.

    Attributes:
        num_steps: Steps it takes.
        folder: Its network, as diffusers saves it.
        num_samples: Samples it learned from.
        hours: Wall-clock hours it took.
    """

    num_steps: int
    folder: Path
    num_samples: int
    hours: float


def teach(
    ground: Ground,
    stages: Sequence[Stage],
    make_method: MakeMethod,
    loop: LoopConfig,
    run_dir: Path,
    *,
    settings: Mapping[str, Any],
    start_from: ModelMixin | None = None,
) -> list[Student]:
    """Teach one student after another, resuming wherever an earlier call was stopped.

    A student starts with the weights of the one before it, the first with the teacher's.

    Args:
        ground: Teacher, data, schedule.
        stages: In order.
        make_method: Makes the method of a stage from student and teacher.
        loop: How each stage is trained; its time limit is that of all stages together.
        run_dir: Folder of the distillation: one folder per stage, and plan.json.
        settings: Everything else that decides the outcome. A folder that was begun with others is
            a CheckpointError.
        start_from: Gives the first student other weights; None for the teacher's.

    Returns:
        The students that are finished; fewer than the stages if time ran out.
    """
    plan = _deciding(settings) | {"loop": _deciding(asdict(loop))}
    if start_from is not None:
        plan["start_from"] = weights_digest(start_from)
    _keep_plan(run_dir, ground.teacher, stages, plan)
    started, finished, before = monotonic(), list[Student](), start_from or ground.teacher
    for stage in stages:
        home = run_dir / f"{stage.num_steps}-steps"
        teacher = before if stage.is_chained else ground.teacher
        student = _finished(home, stage, ground.teacher)
        if student is None:
            network = deepcopy(before)
            own = _loop_of(stage, loop, monotonic() - started)
            done = run(
                make_method(network, teacher, stage),
                ground.source,
                own,
                home,
                sampler=ground.draws(stage.num_steps),
            )
            if done.step < own.num_steps:
                return finished
            student = Student(
                num_steps=stage.num_steps,
                folder=home / "student",
                num_samples=done.num_samples,
                hours=done.hours,
            )
            _keep_student(network, student)
        else:
            network = load_like(ground.teacher, student.folder, param="run_dir")
        finished.append(student)
        before = network
    return finished


def _loop_of(stage: Stage, loop: LoopConfig, spent_s: float) -> LoopConfig:
    limit = loop.time_limit_s
    return replace(
        loop,
        num_steps=stage.training_steps or loop.num_steps,
        seed=loop.seed + stage.num_steps,
        time_limit_s=None if limit is None else max(0.0, limit - spent_s),
    )


def processes() -> PartialState:
    """Return what is known of the processes that teach together; one as a rule."""
    return PartialState(cpu=best_device().type == "cpu")


def _keep_plan(
    run_dir: Path, teacher: nn.Module, stages: Sequence[Stage], settings: Mapping[str, Any]
) -> None:
    plan = {
        "teacher": weights_digest(teacher),
        "stages": [asdict(stage) for stage in stages],
        **settings,
    }
    text = json.dumps(plan, indent=2, default=str) + "\n"
    make_folder(run_dir, param="run_dir")
    file = run_dir / "plan.json"
    if not file.exists():
        processes().wait_for_everyone()
        if processes().is_main_process:
            write_run_record(run_dir, plan)
            fresh = file.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(file)
        return
    begun, asked = _deciding(read_record(file)), json.loads(text)
    changed = sorted(name for name in {*begun, *asked} if begun.get(name) != asked.get(name))
    if changed:
        raise CheckpointError(
            f"{run_dir} was begun with other {', '.join(changed)}: use the same settings, or "
            "another --run-dir.",
            param="run_dir",
        )


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    # how often it is saved, logged or drawn, and when it is stopped, decides nothing
    free = {"save_every", "log_every", "sample_every", "time_limit_s"}
    return {name: value for name, value in settings.items() if name not in free}


def _keep_student(network: ModelMixin, student: Student) -> None:
    state = processes()
    if state.is_main_process:
        fresh = student.folder.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        network.save_pretrained(fresh, safe_serialization=True)
        record = {"num_samples": student.num_samples, "hours": student.hours}
        (fresh / "student.json").write_text(json.dumps(record) + "\n")
        fresh.rename(student.folder)
    state.wait_for_everyone()


def _finished(home: Path, stage: Stage, teacher: ModelMixin) -> Student | None:
    refuse_file(home, param="run_dir")
    folder = home / "student"
    if not folder.is_dir():
        return None
    if not (folder / "student.json").is_file() or not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} is no whole {type(teacher).__name__}: remove {home} to teach it again.",
            param="run_dir",
        )
    record = read_record(folder / "student.json")
    try:
        num_samples, hours = int(record["num_samples"]), float(record["hours"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'student.json'} is damaged ({error}): remove {home} to teach it again.",
            param="run_dir",
        ) from error
    return Student(num_steps=stage.num_steps, folder=folder, num_samples=num_samples, hours=hours)
