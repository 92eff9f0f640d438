import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import CheckpointError
from core.seeding import torch_generator
from distill.noise import NoiseSchedule
from pipelines.schedulers import make_scheduler
from tests.distill.conftest import SCHEDULE


def draw(seed, count=3):
    return torch.randn((count, 2, 4, 4), generator=torch_generator(seed))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 8, 16, 20, 32, 50, 64])
def test_a_student_stands_at_the_times_that_the_server_steps_through(noise, num_steps):
    served = make_scheduler("ddim", SCHEDULE, num_steps).timesteps.tolist()
    assert noise.grid(num_steps).tolist() == [*served, -1]


def test_a_coarse_grid_is_every_so_manyth_time_of_a_finer_one(noise):
    for num_steps, ratio in [(1, 2), (4, 2), (8, 4), (2, 32)]:
        assert torch.equal(noise.grid(num_steps), noise.grid(num_steps * ratio)[::ratio])


def test_noise_and_velocity_are_those_of_diffusers(noise):
    scheduler = DDIMScheduler.from_config(SCHEDULE)
    clean, fresh, times = draw(0), draw(1), torch.tensor([0, 400, 999])
    noisy = noise.mix(clean, fresh, times)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, fresh, times))
    velocity = scheduler.get_velocity(clean, fresh, times)
    torch.testing.assert_close(noise.clean(noisy, velocity, times), clean, atol=1e-5, rtol=1e-5)


def test_a_jump_is_a_step_of_the_served_ddim(noise):
    scheduler = DDIMScheduler.from_config(SCHEDULE)
    scheduler.set_timesteps(4)
    noisy, velocity = draw(0), draw(1)
    for index, time in enumerate(scheduler.timesteps):
        times, ends = time.expand(3), noise.grid(4)[index + 1].expand(3)
        belief = noise.clean(noisy, velocity, times)
        jumped = noise.jump(noisy, belief, times, ends)
        stepped = scheduler.step(velocity, time, noisy).prev_sample
        torch.testing.assert_close(jumped, stepped, atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 999), st.integers(-1, 998), st.integers(0, 99))
def test_what_had_to_be_believed_is_the_inverse_of_the_jump(start, end, seed):
    noise = NoiseSchedule(SCHEDULE)
    end = min(end, start - 1)
    times, ends = torch.full((3,), start), torch.full((3,), end)
    noisy, belief = draw(seed), draw(seed + 1)
    arrived = noise.jump(noisy, belief, times, ends)
    found = noise.believed(noisy, arrived, times, ends)
    signal, spread = noise.at(times)
    signal_end, spread_end = noise.at(ends)
    # a short jump divides by a small number: rounding is allowed what that number amplifies
    sharpness = 1 / float((signal_end - spread_end / spread * signal)[0])
    torch.testing.assert_close(found, belief, atol=1e-5 * sharpness, rtol=1e-4)


def test_the_last_step_ends_on_the_belief_itself(noise):
    noisy, belief = draw(0), draw(1)
    times, ends = torch.tensor([249, 499, 999]), torch.tensor([-1, -1, -1])
    assert torch.equal(noise.jump(noisy, belief, times, ends), belief)


def test_weights_are_one_in_noise_and_the_ratio_in_light(noise):
    weights = noise.truncated_snr(torch.tensor([999, 800, 100]))
    signal, spread = noise.at(torch.tensor([100]))
    assert weights[:2].tolist() == [1.0, 1.0]
    assert float(weights[2]) == pytest.approx(float((signal / spread) ** 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction_type": "epsilon"}, "predicts 'epsilon'"),
        ({"prediction_type": "sample"}, "v_prediction"),
        ({"timestep_spacing": "leading"}, "spaced 'leading'"),
    ],
)
def test_a_teacher_that_cannot_end_in_one_step_is_refused(change, words):
    with pytest.raises(CheckpointError, match=words):
        NoiseSchedule({**SCHEDULE, **change})
