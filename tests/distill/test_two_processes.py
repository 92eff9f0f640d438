import os
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file

from core.seeding import torch_generator
from distill.methods.rdd import RelationalMethod
from distill.student import Drawn
from tests.distill.conftest import loop_config
from tests.distill.joint_run import NUM_STEPS, half, new_method
from training.loop import run


class Joint(RelationalMethod):
    """One process that holds what two processes draw, halves side by side."""

    def step(self, phase, batch, generator):
        step = int(self.num_taught)
        halves = []
        for part in (0, 1):
            own = torch_generator(0, "step", step, phase, part)
            halves.append(self.draw(half(2 * step + part), own))
        joined = {
            each.name: torch.cat([getattr(one, each.name) for one in halves])
            for each in fields(Drawn)
        }
        return self.learn(batch, Drawn(**joined), generator)


def joint(step):
    halves = [half(2 * step), half(2 * step + 1)]
    return {name: torch.cat([each[name] for each in halves]) for name in halves[0]}


@pytest.mark.slow
def test_two_processes_equal_one_with_the_joint_batch(tmp_path):
    # accelerate names its launcher of several processes after GPUs; without one they use gloo
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    script = ["--num_processes=2", "--num_machines=1", "--main_process_port=0"]
    script += ["--mixed_precision=no", "--dynamo_backend=no"]
    subprocess.run(
        [*launch, *script, "-m", "tests.distill.joint_run", str(tmp_path / "two")],
        check=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
    )
    ranks = [load_file(tmp_path / "two" / f"rank-{rank}.safetensors") for rank in (0, 1)]
    # chance decides for each process apart
    assert not torch.equal(ranks[0]["noise"], ranks[1]["noise"])
    assert not torch.equal(ranks[0]["places"], ranks[1]["places"])
    # the queue is gathered and the weights agree
    assert torch.equal(ranks[0]["queue"], ranks[1]["queue"])
    alone = new_method(Joint)
    run(alone, joint, loop_config(NUM_STEPS), tmp_path / "one")
    for name, value in alone.roles["student"].state_dict().items():
        assert torch.equal(ranks[0][f"student.{name}"], ranks[1][f"student.{name}"])
        torch.testing.assert_close(ranks[0][f"student.{name}"], value, rtol=1e-3, atol=1e-5)
    apart = torch.cdist(alone.queue.rows, ranks[0]["queue"])
    assert float(apart.min(dim=1).values.max()) < 1e-3
