import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from distill.stages import chain, fan


def test_in_a_chain_every_student_teaches_the_next():
    stages = chain((8, 4, 2, 1), teacher_steps=16, guidance=4.0)
    assert [(each.teacher_steps, each.num_steps) for each in stages] == [
        (16, 8),
        (8, 4),
        (4, 2),
        (2, 1),
    ]
    assert [each.guidance for each in stages] == [4.0, 1.0, 1.0, 1.0]
    assert {each.ratio for each in stages} == {2}


def test_in_a_fan_all_learn_from_the_first():
    stages = fan((8, 2), teacher_steps=64, guidance=3.0)
    assert [(each.ratio, each.guidance) for each in stages] == [(8, 3.0), (32, 3.0)]


@given(st.integers(0, 6), st.integers(1, 3))
def test_halving_from_any_power_ends_at_one(power, longer):
    steps = [2**each for each in range(power, -1, -1)]
    stages = chain(steps, teacher_steps=2 ** (power + longer), guidance=1.0)
    assert stages[-1].num_steps == 1
    assert all(each.ratio >= 2 for each in stages)


@pytest.mark.parametrize("plan", [chain, fan])
def test_a_rescale_of_guidance_is_refused_unless_it_is_a_share(plan):
    (stage,) = plan((4,), teacher_steps=8, guidance=4.0, guidance_rescale=0.7)
    assert stage.guidance_rescale == 0.7
    with pytest.raises(InputError, match=r"from 0 \(off\) to 1"):
        plan((4,), teacher_steps=8, guidance=4.0, guidance_rescale=1.1)


def test_all_students_of_a_chain_may_start_on_their_own_path():
    stages = chain((4, 2), teacher_steps=8, guidance=4.0, own_path=0.5)
    assert [each.own_path for each in stages] == [0.5, 0.5]
    with pytest.raises(InputError, match=r"own_path 2.0: give a share from 0 \(off\) to 1"):
        chain((4,), teacher_steps=8, guidance=4.0, own_path=2.0)


@pytest.mark.parametrize("wrong", [0.5, float("nan"), float("inf")])
def test_students_that_teach_may_be_guided_but_not_below_one(wrong):
    stages = chain((4, 2, 1), teacher_steps=8, guidance=4.0, chained_guidance=1.5)
    assert [each.guidance for each in stages] == [4.0, 1.5, 1.5]
    assert [each.guidance for each in chain((4, 2), teacher_steps=8, guidance=4.0)] == [4.0, 1.0]
    with pytest.raises(InputError, match=f"chained_guidance {wrong}: give at least 1"):
        chain((4,), teacher_steps=8, guidance=4.0, chained_guidance=wrong)


@pytest.mark.parametrize("plan", [chain, fan])
@pytest.mark.parametrize(
    ("steps", "teacher_steps", "guidance", "words"),
    [
        ((), 16, 4.0, "at least one"),
        ((0,), 16, 4.0, "above 0"),
        ((4, 8), 16, 4.0, "do not fall"),
        ((8, 8), 16, 4.0, "do not fall"),
        ((8, 3), 16, 4.0, "do not divide"),
        ((6,), 16, 4.0, "do not divide"),
        ((16,), 16, 4.0, "more than the student's 16"),
        ((8,), 1001, 4.0, "at most 1000"),
        ((8,), 16, 0.5, "at least 1"),
    ],
)
def test_steps_that_cannot_be_taught_are_refused(plan, steps, teacher_steps, guidance, words):
    with pytest.raises(InputError, match=words):
        plan(steps, teacher_steps=teacher_steps, guidance=guidance)
