"""The solvers against a case whose answer is known in closed form.

For data N(mean, spread**2) the best velocity is a formula, and the exact flow takes noise z to
mean + spread * z: an affine map, whose offset and slope a solver must find.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from core.errors import CheckpointError, InputError, UnknownNameError
from pipelines.noise_schedule import SCHEDULERS, check_noise_schedule
from pipelines.schedulers import make_scheduler

MEAN, SPREAD = 0.7, 0.3
ZERO_SNR = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
    "clip_sample": False,
}
CLASSIC = {
    "_class_name": "DPMSolverMultistepScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "variance_type": "learned_range",
}


def solve(name: str, num_steps: int, config: dict[str, object] = ZERO_SNR) -> tuple[float, float]:
    """Return the mean and the spread of what the solver makes of standard noise."""
    scheduler = make_scheduler(name, config, num_steps)
    alphas = DDIMScheduler.from_config(config | {"clip_sample": False}).alphas_cumprod.double()
    x = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    for timestep in scheduler.timesteps:
        alpha, sigma = alphas[timestep].sqrt(), (1 - alphas[timestep]).sqrt()
        variance = (alpha * SPREAD) ** 2 + sigma**2
        noise = sigma * (x - alpha * MEAN) / variance
        data = MEAN + alpha * SPREAD**2 * (x - alpha * MEAN) / variance
        output = noise if config["prediction_type"] == "epsilon" else alpha * noise - sigma * data
        x = scheduler.step(output, timestep, x, return_dict=False)[0]
    low, middle, high = x.flatten().tolist()
    return middle, (high - low) / 2


@pytest.mark.parametrize("name", SCHEDULERS.names())
@pytest.mark.parametrize("config", [ZERO_SNR, CLASSIC], ids=["zero-snr-v", "classic-epsilon"])
def test_each_solver_converges_to_the_exact_gaussian(name: str, config: dict[str, object]) -> None:
    errors = []
    for num_steps in (5, 20, 100, 500):
        mean, spread = solve(name, num_steps, config)
        assert mean == pytest.approx(MEAN, abs=0.01)
        errors.append(abs(spread - SPREAD))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.007


def test_both_solvers_agree_in_the_limit_from_pure_noise() -> None:
    ddim, dpmpp = solve("ddim", 1000), solve("dpmpp", 1000)
    assert ddim == pytest.approx(dpmpp, abs=0.003)
    assert ddim == pytest.approx((MEAN, SPREAD), abs=0.005)


def test_dpmpp_is_nearer_than_ddim_at_equal_steps() -> None:
    for num_steps in (4, 10, 20, 50):
        assert SPREAD - solve("dpmpp", num_steps)[1] < SPREAD - solve("ddim", num_steps)[1]


@pytest.mark.parametrize("num_steps", [1, 2, 4, 10, 20, 50])
def test_ddim_is_diffusers_ddim_where_steps_divide_the_timesteps(num_steps: int) -> None:
    ours, stock = make_scheduler("ddim", ZERO_SNR, num_steps), DDIMScheduler.from_config(ZERO_SNR)
    stock.set_timesteps(num_steps)
    assert torch.equal(ours.timesteps, stock.timesteps)
    generator = torch.Generator().manual_seed(0)
    x = y = torch.randn(1, 4, 8, 8, generator=generator)
    for timestep in stock.timesteps:
        output = torch.randn(x.shape, generator=generator)
        x = ours.step(output, timestep, x, return_dict=False)[0]
        y = stock.step(output, timestep, y, return_dict=False)[0]
    # The solver starts at alpha_bar = 2**-24, DDIMScheduler at 0: a part in 2**12.
    torch.testing.assert_close(x, y, atol=2e-3, rtol=0)


def test_ddim_leaves_no_noise_behind_where_steps_do_not_divide_the_timesteps() -> None:
    spreads = [solve("ddim", num_steps)[1] for num_steps in (25, 30, 50, 60, 500, 600, 1000)]
    assert spreads == sorted(spreads)
    assert all(spread < SPREAD for spread in spreads)


@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_every_run_has_a_solver_of_its_own(name: str) -> None:
    first, second = (make_scheduler(name, ZERO_SNR, 4) for _ in range(2))
    x = torch.zeros(1, 1, 2, 2)
    first.step(x, first.timesteps[0], x)
    assert (first.step_index, second.step_index) == (1, None)


@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_training_settings_survive(name: str) -> None:
    config = make_scheduler(name, ZERO_SNR, 4).config
    for key in ("prediction_type", "timestep_spacing", "rescale_betas_zero_snr", "beta_schedule"):
        assert config[key] == ZERO_SNR[key]
    assert make_scheduler(name, ZERO_SNR, 1).timesteps.tolist() == [999]


@pytest.mark.parametrize("num_steps", [1, 3, 7, 333, 999, 1000])
def test_any_number_of_trailing_steps_is_finite(num_steps: int) -> None:
    for name in SCHEDULERS:
        assert np.isfinite(solve(name, num_steps)).all()


def test_steps_that_find_no_timestep_are_refused() -> None:
    for config, num_steps in ((CLASSIC, 1000), (ZERO_SNR, 1001)):
        with pytest.raises(InputError, match="do not fit") as error:
            make_scheduler("dpmpp", config, num_steps)
        assert error.value.param == "num_steps"


def test_unknown_scheduler_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'dpmpp'.*ddim, dpmpp") as error:
        make_scheduler("dpmp", ZERO_SNR, 4)
    assert error.value.param == "scheduler"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"prediction_type": "epsilon"}, "pure noise"),
        ({"clip_sample": True}, "clip_sample"),
        ({"thresholding": True}, "thresholding"),
    ],
)
def test_a_schedule_that_would_be_followed_wrongly_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_noise_schedule(ZERO_SNR | changes, Path("scheduler_config.json"))


def test_flow_matching_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="FlowMatchEulerDiscreteScheduler"):
        check_noise_schedule({"_class_name": "FlowMatchEulerDiscreteScheduler"}, Path("config"))
