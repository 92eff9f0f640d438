"""What is true of every way to teach a student, and of each alone."""

import json
from dataclasses import replace

import pytest
import torch

from core.errors import CheckpointError, NumericsError
from core.seeding import torch_generator
from distill.methods.consistency import ConsistencyMethod
from distill.methods.progressive import ProgressiveMethod
from distill.methods.rcfd import ClassifierFeatureMethod
from distill.methods.rdd import RelationalMethod, RelationalSettings
from distill.sampling import sample
from distill.stages import Stage
from tests.distill.conftest import (
    SHAPE,
    GaussianOracle,
    TinyFeatures,
    TinyNetwork,
    loop_config,
    pixel_batch,
    tiny_task,
)
from training.loop import run

STAGE = Stage(num_steps=2, teacher_steps=8, guidance=2.0)
TINY_QUEUE = {"capacity": 40, "num_contrasts": 10, "num_fresh": 16}


def make(name, noise, *, student=None, teacher=None, stage=STAGE, features=None, **settings):
    parts = (student or TinyNetwork(), teacher or TinyNetwork(1), tiny_task(), noise, stage)
    if name == "progressive":
        return ProgressiveMethod(*parts)
    if name == "consistency":
        return ConsistencyMethod(*parts)
    features = features or TinyFeatures()
    if name == "rcfd":
        return ClassifierFeatureMethod(*parts, features=features)
    queue = "release" if name == "rdd-release" else "paper"
    chosen = RelationalSettings(**{**TINY_QUEUE, "queue": queue, **settings})
    return RelationalMethod(*parts, features=features, settings=chosen)


METHODS = ("progressive", "consistency", "rcfd", "rdd", "rdd-release")
every_method = pytest.mark.parametrize("name", METHODS)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@every_method
def test_half_and_half_is_whole_bit_for_bit(name, noise, tmp_path):
    whole = make(name, noise)
    run(whole, pixel_batch, loop_config(6), tmp_path / "whole")
    for _ in range(2):
        run(make(name, noise), pixel_batch, loop_config(6, time_limit_s=0.0), tmp_path / "parts")
    part = make(name, noise)
    done = run(part, pixel_batch, loop_config(6), tmp_path / "parts")
    assert done.step == 6
    assert same(state(whole), state(part))
    assert ("queue.rows" in state(part)) == name.startswith("rdd")


@every_method
def test_only_the_student_moves(name, noise, tmp_path):
    method = make(name, noise)
    frozen = {role: state(method.roles[role]) for role in method.roles if role != "projector"}
    run(method, pixel_batch, loop_config(3), tmp_path)
    moved = {role for role, before in frozen.items() if not same(before, state(method.roles[role]))}
    assert moved == {"student"}


@every_method
def test_a_student_of_a_one_picture_world_is_already_perfect(name, noise):
    # there every DDIM path is straight, so one step lands where many land
    picture = torch.rand(SHAPE, generator=torch_generator(0))
    oracle = GaussianOracle(picture, noise)
    method = make(name, noise, student=oracle, teacher=oracle, stage=replace(STAGE, guidance=1.0))
    batch = {**pixel_batch(0), "pixels": picture.expand(6, *SHAPE)}
    output = method.step("distill", batch, torch_generator(1))
    for term in ("squared", "intra"):
        assert float(output.metrics.get(term, torch.zeros(()))) == pytest.approx(0, abs=1e-6)


@every_method
def test_every_term_and_its_gradient_are_logged_and_add_up(name, noise):
    method = make(name, noise)
    output = method.step("distill", pixel_batch(0), torch_generator(0))
    weights = {"squared": 1.0, "cfd": 1.0, "intra": 1.0, "memory": 0.1}
    terms = [term for term in weights if term in output.metrics]
    total = sum(weights[term] * output.metrics[term] for term in terms)
    torch.testing.assert_close(output.loss.detach(), torch.as_tensor(total))
    assert terms
    assert all(float(output.metrics[f"gradient_{term}"]) > 0 for term in terms)


@every_method
def test_the_loss_falls(name, noise, tmp_path):
    method = make(name, noise)
    run(method, lambda _: pixel_batch(0), loop_config(60), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # the memory's contents change under way, and with them what its term is compared with
    losses = [row.get("squared", row.get("cfd")) for row in rows if "loss" in row]
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])


@every_method
def test_nan_is_named_with_its_step_and_leaves_the_checkpoint(name, noise, tmp_path):
    method = make(name, noise)

    def spoilt(step):
        batch = pixel_batch(step)
        return batch if step < 3 else {**batch, "pixels": batch["pixels"] * float("nan")}

    with pytest.raises(NumericsError, match="teacher_picture is nan at step 3, phase 'distill'"):
        run(method, spoilt, loop_config(9, save_every=2), tmp_path)
    assert json.loads((tmp_path / "checkpoint" / "progress.json").read_text())["step"] == 2


def test_frozen_networks_stay_out_of_the_checkpoint_and_strangers_are_refused(noise, tmp_path):
    method = make("rdd", noise)
    names = {name.split(".")[1] for name in method.state_dict() if name.startswith("roles.")}
    assert names == {"student", "projector"}
    run(method, pixel_batch, loop_config(2), tmp_path)
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        run(make("rcfd", noise), pixel_batch, loop_config(4), tmp_path)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_the_teachers_target_is_where_its_own_sampling_leads(noise, rescale):
    # from pure noise, one student step over all teacher steps believes in the teacher's picture
    stage = Stage(num_steps=1, teacher_steps=5, guidance=3.0, guidance_rescale=rescale)
    method = make("progressive", noise, stage=stage)
    batch = pixel_batch(0)
    seeds = list(range(6))
    drawn = method.draw(batch, torch_generator(0))
    start = torch.stack([torch.randn(SHAPE, generator=torch_generator(seed)) for seed in seeds])
    pair = method.whole_steps(batch, replace(drawn, noise=start))
    painted = sample(
        method.roles["teacher"],
        tiny_task(),
        noise,
        batch,
        num_steps=5,
        guidance=3.0,
        rescale=rescale,
        seeds=seeds,
    )
    torch.testing.assert_close(pair.teacher, painted, atol=1e-3, rtol=1e-3)
