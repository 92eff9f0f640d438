"""Distribution matching in worlds of one picture, where what is likely is known."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from core.errors import InputError
from core.seeding import torch_generator
from distill.methods.dmd import DistributionMatchingMethod
from distill.stages import Stage
from tests.distill.conftest import SHAPE, TinyNetwork, loop_config, pixel_batch, tiny_task
from training.loop import run
from training.optimizers import OptimizerConfig

STAGE = Stage(num_steps=2, teacher_steps=4)


class OnePicture(nn.Module):
    """The velocity of a world of one picture, which it can learn."""

    def __init__(self, value, noise):
        super().__init__()
        self.picture = nn.Parameter(torch.full(SHAPE, value))
        self.schedule = {"noise": noise}  # not a part of it

    def forward(self, noisy, timestep, class_labels):
        signal, spread = self.schedule["noise"].at(timestep)
        return SimpleNamespace(sample=(signal * noisy - self.picture) / spread)


def test_a_student_that_the_critic_tells_from_the_teacher_in_nothing_stays(noise):
    method = DistributionMatchingMethod(TinyNetwork(), TinyNetwork(1), tiny_task(), noise, STAGE)
    output = method.step("distill", pixel_batch(0), torch_generator(0))
    output.loss.backward()
    moved = [w.grad.abs().max() for w in method.roles["student"].parameters()]
    assert float(torch.stack(moved).max()) == 0


def test_the_student_is_drawn_to_what_the_teacher_finds_likely(noise):
    student, teacher = OnePicture(0.5, noise), OnePicture(-0.25, noise)
    method = DistributionMatchingMethod(student, teacher, tiny_task(), noise, STAGE)
    with torch.no_grad():
        method.roles["critic"].picture.fill_(0.5)  # it knows what the student paints
    method.step("distill", pixel_batch(0), torch_generator(0)).loss.backward()
    # critic minus teacher is 0.75 everywhere, over the student's distance of as much: 1, and the
    # mean over all values shares it out
    share = 1 / student.picture.numel()
    torch.testing.assert_close(student.picture.grad, torch.full(SHAPE, share))


def test_critic_and_student_together_arrive_at_the_teacher(noise, tmp_path):
    student, teacher = OnePicture(0.5, noise), OnePicture(-0.25, noise)
    method = DistributionMatchingMethod(student, teacher, tiny_task(), noise, STAGE)
    quick = OptimizerConfig(learning_rate=0.01, warmup_steps=2, weight_decay=0.0)
    run(method, pixel_batch, loop_config(400, optimizer=quick), tmp_path)
    assert float((student.picture + 0.25).abs().max()) < 0.1
    assert float((teacher.picture + 0.25).abs().max()) == 0


def test_the_student_moves_at_every_so_manyth_step_alone(noise, tmp_path):
    method = DistributionMatchingMethod(
        TinyNetwork(), TinyNetwork(1), tiny_task(), noise, STAGE, critic_steps=3
    )
    run(method, pixel_batch, loop_config(7), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum("critic" in row for row in rows) == 7
    assert sum("matching" in row for row in rows) == 3  # the first, fourth and seventh step
    with pytest.raises(InputError, match="at least 1"):
        DistributionMatchingMethod(
            TinyNetwork(), TinyNetwork(1), tiny_task(), noise, STAGE, critic_steps=0
        )
