"""What is true of every way to teach a student, and of each alone."""

import json
from dataclasses import replace

import pytest
import torch

from core.errors import CheckpointError, InputError, NumericsError, UnknownNameError
from core.seeding import torch_generator
from distill.methods.consistency import ConsistencyMethod
from distill.methods.dmd import DistributionMatchingMethod
from distill.methods.progressive import ProgressiveMethod
from distill.methods.rcfd import ClassifierFeatureMethod
from distill.methods.rdd import RelationalMethod, RelationalSettings, new_projector
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
from training.losses.relational import row_kl

STAGE = Stage(num_steps=2, teacher_steps=8, guidance=2.0)
TINY_QUEUE = {"capacity": 40, "num_contrasts": 10, "num_fresh": 16}


def make(name, noise, *, student=None, teacher=None, stage=STAGE, features=None, **settings):
    parts = (student or TinyNetwork(), teacher or TinyNetwork(1), tiny_task(), noise, stage)
    if name == "progressive":
        return ProgressiveMethod(*parts)
    if name == "consistency":
        return ConsistencyMethod(*parts)
    if name == "dmd":
        return DistributionMatchingMethod(*parts)
    features = features or TinyFeatures()
    if name == "rcfd":
        return ClassifierFeatureMethod(*parts, features=features)
    queue = "release" if name == "rdd-release" else "paper"
    chosen = RelationalSettings(**{**TINY_QUEUE, "queue": queue, **settings})
    return RelationalMethod(*parts, features=features, settings=chosen)


TARGETED = ("progressive", "consistency", "rcfd", "rdd", "rdd-release")
every_method = pytest.mark.parametrize("name", [*TARGETED, "dmd"])
every_targeted_method = pytest.mark.parametrize("name", TARGETED)


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
    before = {role: state(method.roles[role]) for role in method.roles}
    run(method, pixel_batch, loop_config(3), tmp_path)
    moved = {role for role, was in before.items() if not same(was, state(method.roles[role]))}
    assert moved - {"projector", "critic"} == {"student"}


@every_targeted_method
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
    weights = {"squared": 1.0, "cfd": 1.0, "intra": 1.0, "memory": 0.1, "matching": 1.0}
    terms = [term for term in weights if term in output.metrics]
    total = sum(weights[term] * output.metrics[term] for term in terms)
    torch.testing.assert_close(output.loss.detach(), torch.as_tensor(total))
    assert terms
    assert all(float(output.metrics[f"gradient_{term}"]) > 0 for term in terms)


@every_targeted_method
def test_the_loss_falls(name, noise, tmp_path):
    method = make(name, noise)
    run(method, lambda _: pixel_batch(0), loop_config(60), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # the memory's contents change under way, and with them what its term is compared with
    losses = [row.get("squared", row.get("cfd")) for row in rows if "loss" in row]
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])


@every_targeted_method
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


def test_a_student_that_hits_every_target_paints_its_teachers_pictures(noise):
    # one student step equals two of the teacher's when the believed picture is the target
    method = make("progressive", noise, stage=Stage(num_steps=4, teacher_steps=8))
    batch = pixel_batch(0)
    drawn = replace(method.draw(batch, torch_generator(0)), places=torch.tensor([0, 1, 2, 3, 1, 2]))
    pair = method.whole_steps(batch, drawn)
    ends = noise.grid(4)[drawn.places + 1]
    noisy = noise.mix(batch["pixels"], drawn.noise, pair.times)
    words, nothing = tiny_task().heard(batch)
    walked = method.walk(noisy, drawn.places * 2, 2, words, nothing)
    jumped = noise.jump(noisy, pair.teacher, pair.times, ends)
    torch.testing.assert_close(jumped, walked, atol=1e-4, rtol=1e-4)


def test_on_its_own_path_a_student_starts_where_its_sampling_leads(noise):
    # where sampling ends is where it leads after its last step, told by the same arithmetic
    stage = Stage(num_steps=4, teacher_steps=8, own_path=1.0)
    method = make("progressive", noise, stage=stage)
    batch, generator = pixel_batch(0), torch_generator(0)
    seeds = list(range(6))
    start = torch.stack([torch.randn(SHAPE, generator=torch_generator(seed)) for seed in seeds])
    drawn = replace(method.draw(batch, generator), noise=start, places=torch.full((6,), 3))
    assert drawn.is_own.all()
    pair = method.whole_steps(batch, drawn)
    painted = sample(method.roles["student"], tiny_task(), noise, batch, num_steps=4, seeds=seeds)
    torch.testing.assert_close(pair.student.detach(), painted, atol=1e-4, rtol=1e-4)


def test_on_its_own_path_a_student_never_sees_a_training_picture(noise):
    stage = Stage(num_steps=4, teacher_steps=8, own_path=1.0)
    method = make("progressive", noise, stage=stage)
    batch = pixel_batch(0)
    drawn = method.draw(batch, torch_generator(0))
    other = {**batch, "pixels": batch["pixels"].flip(0)}
    one, two = method.whole_steps(batch, drawn), method.whole_steps(other, drawn)
    assert torch.equal(one.student, two.student)
    assert torch.equal(one.teacher, two.teacher)
    # and gradient reaches the student through the step that is taught
    method.squared_error(one).backward()
    assert any(weight.grad.any() for weight in method.roles["student"].parameters())


def test_a_share_of_a_batch_may_start_on_the_students_own_path(noise):
    stage = Stage(num_steps=4, teacher_steps=8, own_path=0.5)
    method = make("progressive", noise, stage=stage)
    batch = pixel_batch(0)
    drawn = method.draw(batch, torch_generator(3))
    assert 0 < drawn.is_own.sum() < len(drawn.is_own)
    whole = replace(drawn, is_own=torch.ones_like(drawn.is_own))
    none = replace(drawn, is_own=torch.zeros_like(drawn.is_own))
    mixed, own, given = (method.whole_steps(batch, each).student for each in (drawn, whole, none))
    chosen = drawn.is_own[:, None, None, None]
    torch.testing.assert_close(mixed, torch.where(chosen, own, given))


def test_the_larger_of_picture_and_noise_error_is_descended(noise):
    method = make("progressive", noise)
    batch = pixel_batch(0)
    pair = method.whole_steps(batch, method.draw(batch, torch_generator(0)))
    signal, spread = noise.at(pair.times)
    of_picture = (pair.student - pair.teacher).square().mean(dim=(1, 2, 3))
    of_noise = ((signal / spread) ** 2).flatten() * of_picture
    expected = torch.maximum(of_picture, of_noise).mean()
    torch.testing.assert_close(method.squared_error(pair), expected)


def test_a_sharper_teacher_is_the_only_difference_of_rcfd_from_plain_divergence(noise):
    features = TinyFeatures()
    method = make("rcfd", noise, features=features)
    batch, generator = pixel_batch(0), torch_generator(0)
    drawn = method.draw(batch, generator)
    pair = method.whole_steps(batch, drawn)
    taught, seen = features(pair.teacher).vector, features(pair.student).vector
    expected = row_kl(seen, taught / 0.9, reduction="row_mean")
    torch.testing.assert_close(method.learn(batch, drawn, generator).loss, expected)


ABLATIONS = {
    "squared": {"squared": 1.0, "cfd": 0.0, "intra": 0.0, "memory": 0.0},
    "cfd": {"squared": 0.0, "cfd": 1.0, "intra": 0.0, "memory": 0.0},
}


@pytest.mark.parametrize(("weights", "twin"), [("squared", "progressive"), ("cfd", "rcfd")])
def test_rdd_with_one_term_is_the_method_of_that_term(weights, twin, noise):
    methods = (make("rdd", noise, **ABLATIONS[weights]), make(twin, noise))
    outputs = [each.step("distill", pixel_batch(0), torch_generator(0)).loss for each in methods]
    torch.testing.assert_close(*outputs)


def test_the_queue_fills_with_the_teachers_pixels(noise, tmp_path):
    method = make("rdd", noise)
    run(method, pixel_batch, loop_config(2), tmp_path)
    assert int(method.queue.num_filled) == 32
    torch.testing.assert_close(method.queue.rows.norm(dim=-1), torch.ones(40))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["queue_fill"] for row in rows if "queue_fill" in row] == pytest.approx([0, 0.4])


def test_a_pixel_of_the_paper_is_one_pictures_and_one_of_the_release_is_many_pictures(noise):
    maps = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 6, 2, 2) + 1  # picture k is all k + 1
    maps = maps * (1 + torch.arange(6.0).view(1, 6, 1, 1))  # channels differ, so cosines can tell
    rows = {
        queue: make("rdd", noise, queue=queue, num_fresh=1000)._newest(maps, torch_generator(0))
        for queue in ("paper", "release")
    }
    shape = torch.arange(1.0, 7.0)
    cosines = {q: torch.nn.functional.cosine_similarity(r, shape, dim=1) for q, r in rows.items()}
    assert float(cosines["paper"].min()) > 0.999
    assert float(cosines["release"].max()) < 0.999


def test_contrasts_of_the_paper_change_and_those_of_the_release_stay(noise):
    def losses(queue):
        method = make("rdd", noise, queue=queue, **ABLATIONS["cfd"] | {"memory": 1.0, "cfd": 0.0})
        batch = pixel_batch(0)
        drawn = method.draw(batch, torch_generator(0))
        return [float(method.learn(batch, drawn, torch_generator(s)).loss.detach()) for s in (1, 2)]

    paper, release = losses("paper"), losses("release")
    assert paper[0] != paper[1]
    assert release[0] == release[1]


def test_impossible_settings_are_refused():
    with pytest.raises(UnknownNameError, match="paper, release"):
        RelationalSettings(queue="ring")
    with pytest.raises(InputError, match="below 0"):
        RelationalSettings(cfd=-1.0)
    with pytest.raises(InputError, match="one above"):
        RelationalSettings(cfd=0.0, intra=0.0, memory=0.0)
    with pytest.raises(InputError, match="above 0"):
        RelationalSettings(temperature=0.0)


def test_a_projector_is_a_function_of_its_seed():
    assert same(state(new_projector(6, seed=1)), state(new_projector(6, seed=1)))
    assert not same(state(new_projector(6, seed=1)), state(new_projector(6, seed=2)))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
def test_fused_networks_find_the_same_errors(noise):
    plain, quick = make("progressive", noise), make("progressive", noise)
    quick.fuse()
    found = [
        each.step("distill", pixel_batch(0), torch_generator(0, "fused")).loss
        for each in (plain, quick)
    ]
    torch.testing.assert_close(found[1], found[0])
    found[1].backward()
    assert all(w.grad is not None for w in quick.roles["student"].parameters())
