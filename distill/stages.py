"""The Schedule of a distillation: which student learns from whom, in which order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from core.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One student.

    Attributes:
        num_steps: Steps that the student takes from noise to picture.
        teacher_steps: Steps that its teacher takes.
        guidance: Classifier-free guidance of the teacher that the student learns to do without;
            1 for none, as a rule where the teacher is a student itself.
        guidance_rescale: How far its guided predictions go back to the spread they had, 0..1.
        own_path: Share of samples that start where the student itself arrives, 0..1; the others
            start at noisy training pictures.
        is_chained: Whether the student before it is its teacher, and not the first teacher.
        training_steps: Optimizer steps that it is taught for; None takes the loop's.
    """

    num_steps: int
    teacher_steps: int
    guidance: float = 1.0
    guidance_rescale: float = 0.0
    own_path: float = 0.0
    is_chained: bool = False
    training_steps: int | None = None

    @property
    def ratio(self) -> int:
        """Teacher steps that one student step stands for."""
        return self.teacher_steps // self.num_steps


def chain(
    steps: Sequence[int],
    *,
    teacher_steps: int,
    guidance: float,
    guidance_rescale: float = 0.0,
    chained_guidance: float = 1.0,
    own_path: float = 0.0,
    num_times: int = 1000,
) -> tuple[Stage, ...]:
    """Return stages in which every student becomes the next one's teacher.

    Args:
        steps: Steps of the students, each a divisor of the one before; halving is the paper's.
        teacher_steps: Steps of the first teacher.
        guidance: The first teacher's, at least 1; students carry it in their weights.
        guidance_rescale: How far its guided predictions go back to the spread they had, 0..1.
        chained_guidance: Guidance of students that teach the next one, on top of what they carry,
            at least 1; it makes up for what each chaining loses of it.
        own_path: Share of samples that start where the student itself arrives, 0..1.
        num_times: Times of the noise schedule.
    """
    _check(steps, teacher_steps, guidance, num_times)
    _check_share("guidance_rescale", guidance_rescale)
    _check_share("own_path", own_path)
    _check_guidance("chained_guidance", chained_guidance)
    for teacher, student in pairwise([teacher_steps, *steps]):
        _check_divides(student, teacher)
    first = Stage(
        num_steps=steps[0],
        teacher_steps=teacher_steps,
        guidance=guidance,
        guidance_rescale=guidance_rescale,
        own_path=own_path,
    )
    later = (
        Stage(
            num_steps=student,
            teacher_steps=teacher,
            guidance=chained_guidance,
            own_path=own_path,
            is_chained=True,
        )
        for teacher, student in pairwise(steps)
    )
    return (first, *later)


def fan(
    steps: Sequence[int],
    *,
    teacher_steps: int,
    guidance: float,
    guidance_rescale: float = 0.0,
    num_times: int = 1000,
) -> tuple[Stage, ...]:
    """Return stages in which every student learns from the first teacher.

    Args:
        steps: Steps of the students, each a divisor of the teacher's.
        teacher_steps: Steps of the teacher.
        guidance: The teacher's, at least 1.
        guidance_rescale: How far its guided predictions go back to the spread they had, 0..1.
        num_times: Times of the noise schedule.
    """
    _check(steps, teacher_steps, guidance, num_times)
    _check_share("guidance_rescale", guidance_rescale)
    for student in steps:
        _check_divides(student, teacher_steps)
    return tuple(
        Stage(
            num_steps=student,
            teacher_steps=teacher_steps,
            guidance=guidance,
            guidance_rescale=guidance_rescale,
        )
        for student in steps
    )


def _check(steps: Sequence[int], teacher_steps: int, guidance: float, num_times: int) -> None:
    if not steps or min(steps) < 1:
        raise InputError(f"Steps {list(steps)}: give at least one, each above 0.", param="steps")
    if list(steps) != sorted(set(steps), reverse=True):
        raise InputError(
            f"Steps {list(steps)} do not fall: list students from many steps to few, each once.",
            param="steps",
        )
    if steps[0] >= num_times:
        raise InputError(
            f"Steps {steps[0]}: a student takes fewer than the {num_times} times of the schedule.",
            param="steps",
        )
    if not steps[0] < teacher_steps <= num_times:
        raise InputError(
            f"A teacher of {teacher_steps} steps: give more than the student's {steps[0]} and at "
            f"most {num_times}.",
            param="teacher_steps",
        )
    _check_guidance("guidance", guidance)


def _check_guidance(name: str, guidance: float) -> None:
    if not 1 <= guidance < math.inf:
        raise InputError(f"{name} {guidance}: give at least 1.", param=name)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise InputError(f"{name} {share}: give a share from 0 (off) to 1.", param=name)


def _check_divides(student: int, teacher: int) -> None:
    if teacher % student or teacher == student:
        raise InputError(
            f"{student} steps do not divide the teacher's {teacher}: every student step stands for "
            f"a whole number of teacher steps. Give steps such as {teacher // 2}, or another "
            "number of teacher steps.",
            param="steps",
        )
