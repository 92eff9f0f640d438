from dataclasses import replace

import pytest

from app.images.quality import Effort, choose_effort, levels
from app.schemas.images import ImageRequest
from core.errors import InputError
from pipelines.model_info import ModelInfo
from tests.app.conftest import SteppedPainter

TEACHER = replace(SteppedPainter(variant="teacher", steps=20).info, bits=32)
STUDENT = replace(
    TEACHER,
    variant="student",
    default_steps=4,
    default_guidance=1.0,
    origin={"parent": "teacher"},
)
PACKED = replace(STUDENT, variant="packed", bits=4)


def _table(*models: ModelInfo, max_steps: int = 100) -> dict[str, tuple[str, int]]:
    table = levels({model.variant: model for model in models}, max_steps)
    return {level: (effort.variant, effort.steps) for level, effort in table.items()}


def test_one_variant_differs_in_steps_alone() -> None:
    assert _table(TEACHER) == {
        "low": ("teacher", 10),
        "medium": ("teacher", 20),
        "high": ("teacher", 30),
        "xhigh": ("teacher", 40),
        "max": ("teacher", 80),
    }


def test_a_student_paints_in_the_steps_that_it_was_taught_for() -> None:
    assert set(_table(STUDENT).values()) == {("student", 4)}


def test_the_fastest_is_low_and_the_most_thorough_is_high() -> None:
    table = _table(STUDENT, TEACHER, PACKED)
    assert table["low"] == ("packed", 4)
    assert table["medium"] == ("student", 4)
    assert table["high"] == ("teacher", 20)


@pytest.mark.parametrize("models", [[TEACHER], [STUDENT, TEACHER], [TEACHER, STUDENT, PACKED]])
def test_levels_never_go_down_nor_above_the_limit(models: list[ModelInfo]) -> None:
    steps = [count for _, count in _table(*models, max_steps=25).values()]
    assert steps == sorted(steps)
    assert 1 <= steps[0] <= steps[-1] <= 25


def _chosen(**fields: object) -> Effort:
    body = ImageRequest(prompt="a red apple", **fields)
    return choose_effort(body, {"teacher": TEACHER, "student": STUDENT}, 100)


def test_what_is_said_is_what_is_painted() -> None:
    assert _chosen() == _chosen(quality="auto") == _chosen(quality="standard")
    assert _chosen() == Effort(quality="medium", variant="teacher", steps=20)
    assert _chosen(quality="hd") == _chosen(quality="high")
    assert _chosen(steps=7) == Effort(quality="auto", variant="teacher", steps=7)
    assert _chosen(variant="student") == Effort(quality="auto", variant="student", steps=4)
    with pytest.raises(InputError, match="1 to 100"):
        _chosen(steps=101)
