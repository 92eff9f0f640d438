import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.errors import CheckpointError, NumericsError
from tests.training.conftest import LineMethod, line_batch, line_config
from training.loop import run
from training.method import StepOutput
from training.recorders import read_metrics


def weights(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_training_finds_the_line(run_dir):
    method = LineMethod()
    run(method, line_batch, line_config(800, clip_norm=10.0, ema_decay=0.9), run_dir)
    assert method.roles["student"].weight.item() == pytest.approx(2.0, abs=0.05)
    assert method.roles["student"].bias.item() == pytest.approx(1.0, abs=0.05)


def test_half_and_half_is_whole_bit_for_bit(tmp_path):
    # time_limit_s=0 stops after one step wherever it is; three parts make the whole
    whole, part = LineMethod(), None
    run(whole, line_batch, line_config(7), tmp_path / "whole")
    for _ in range(3):
        part = LineMethod()
        run(part, line_batch, line_config(7, time_limit_s=0.0), tmp_path / "parts")
    part = LineMethod()
    done = run(part, line_batch, line_config(7), tmp_path / "parts")
    assert done.step == 7
    assert done.num_samples == 7 * 8
    assert_equal(weights(whole), weights(part))


def test_frozen_roles_never_move(run_dir):
    method = LineMethod()
    before = weights(method.roles["teacher"])
    run(method, line_batch, line_config(5), run_dir)
    assert_equal(before, weights(method.roles["teacher"]))


def test_state_that_no_gradient_moves_is_resumed(run_dir):
    run(LineMethod(), line_batch, line_config(4), run_dir)
    resumed = LineMethod()
    run(resumed, line_batch, line_config(6), run_dir)
    assert int(resumed.num_seen) == 6


def test_accumulated_batches_move_as_one_large_batch(tmp_path):
    def halves(step):
        return {"x": line_batch(step // 2)["x"][4 * (step % 2) :][:4]}

    class Exact(LineMethod):
        def step(self, phase, batch, generator):
            error = self.roles["student"](batch["x"]) - self.roles["teacher"](batch["x"]).detach()
            return StepOutput(loss=error.square().mean())

    joint, split = Exact(), Exact()
    run(joint, line_batch, line_config(6), tmp_path / "joint")
    run(split, halves, line_config(6, accumulation=2), tmp_path / "split")
    for name, value in weights(joint).items():
        torch.testing.assert_close(weights(split)[name], value, rtol=1e-5, atol=1e-6)


def test_two_processes_equal_one_that_accumulates_twice_as_many(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = ["--nproc-per-node=2", "-m", "tests.training.line_run", str(tmp_path / "two")]
    subprocess.run(
        [*command, *script], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    alone = LineMethod()
    done = run(alone, line_batch, line_config(6, accumulation=2), tmp_path / "one")
    saved = json.loads((tmp_path / "two" / "checkpoint" / "progress.json").read_text())
    assert (saved["step"], saved["num_samples"]) == (6, done.num_samples)
    together = load_file(tmp_path / "two" / "student.safetensors")
    for name, value in weights(alone.roles["student"]).items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-6)
    logs = [(tmp_path / each / "metrics.jsonl").read_text().splitlines() for each in ("one", "two")]
    assert len(logs[0]) == len(logs[1])  # one process writes for all


def test_nan_stops_the_run_by_name_and_leaves_the_last_checkpoint(run_dir):
    class Breaks(LineMethod):
        def step(self, phase, batch, generator):
            output = super().step(phase, batch, generator)
            if int(self.num_seen) == 3:
                return replace(output, metrics={"error": torch.tensor(float("nan"))})
            return output

    with pytest.raises(NumericsError, match="error is nan at step 3, phase 'fit'; all weights"):
        run(Breaks(), line_batch, line_config(9, save_every=2), run_dir)
    saved = json.loads((run_dir / "checkpoint" / "progress.json").read_text())
    assert saved["step"] == 2


def test_weights_that_an_optimizer_broke_are_never_saved(run_dir):
    class Breaks(LineMethod):
        def after_step(self, step):
            super().after_step(step)
            if step == 3:
                self.roles["student"].weight.data.fill_(float("inf"))

    with pytest.raises(NumericsError, match=r"student\.weight is not finite after step 4"):
        run(Breaks(), line_batch, line_config(4, save_every=2), run_dir)
    saved = json.loads((run_dir / "checkpoint" / "progress.json").read_text())
    assert saved["step"] == 2


def test_half_a_line_of_a_killed_run_is_left_out(run_dir):
    run(LineMethod(), line_batch, line_config(5), run_dir)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    run(LineMethod(), line_batch, line_config(10), run_dir)
    assert [row["step"] for row in read_metrics(run_dir / "metrics.jsonl")] == [5, 10]


def test_infinite_gradient_is_blamed_on_its_weight(run_dir):
    class Explodes(LineMethod):
        def step(self, phase, batch, generator):
            # sqrt has an infinite slope at zero while its value is finite
            return StepOutput(loss=(self.roles["student"].weight * 0).sqrt().sum())

    with pytest.raises(NumericsError, match=r"gradient of student\.weight"):
        run(Explodes(), line_batch, line_config(2), run_dir)


def test_checkpoint_of_another_shape_is_refused(run_dir):
    run(LineMethod(), line_batch, line_config(2), run_dir)
    other = LineMethod()
    other.roles["student"] = torch.nn.Linear(1, 3)
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        run(other, line_batch, line_config(4), run_dir)


class Evil:
    """What a stranger may have put into a checkpoint."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_a_checkpoint_that_holds_code_is_refused_and_nothing_runs(run_dir, tmp_path):
    run(LineMethod(), line_batch, line_config(2), run_dir)
    witness = tmp_path / "it-ran"
    torch.save(Evil(witness), run_dir / "checkpoint" / "custom_checkpoint_0.pkl")
    with pytest.raises(CheckpointError, match="damaged, or holds more than tensors"):
        run(LineMethod(), line_batch, line_config(4), run_dir)
    assert not witness.exists()


@pytest.mark.parametrize(
    "name", ["custom_checkpoint_0.pkl", "random_states_0.pkl", "optimizer.bin"]
)
def test_a_truncated_checkpoint_is_named(name, run_dir):
    run(LineMethod(), line_batch, line_config(2), run_dir)
    file = run_dir / "checkpoint" / name
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        run(LineMethod(), line_batch, line_config(4), run_dir)


def test_killed_between_two_renames_resumes_from_the_old_checkpoint(run_dir):
    run(LineMethod(), line_batch, line_config(3), run_dir)
    (run_dir / "checkpoint").rename(run_dir / "checkpoint.old")
    done = run(LineMethod(), line_batch, line_config(3), run_dir)
    assert done.step == 3


def test_metrics_curves_and_samples_are_written(run_dir):
    seen = []

    def sampler(method, path):
        seen.append(path.name)
        return {"distance": 1.0}

    run(LineMethod(), line_batch, line_config(12), run_dir, sampler=sampler)
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 10, 12, 12]
    assert rows[0]["samples"] == 40
    assert seen == ["0000010.png", "0000012.png"]
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_averaged_weights_are_sampled_and_left_behind(run_dir):
    sampled = {}

    def sampler(method, path):
        sampled.update(weights(method.roles["student"]))
        return {}

    method = LineMethod()
    run(method, line_batch, line_config(20, ema_decay=0.5), run_dir, sampler=sampler)
    assert_equal(sampled, weights(method.roles["student"]))
