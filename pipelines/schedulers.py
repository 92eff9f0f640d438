"""The solvers that a request may name, each on the noise schedule that the model was trained with.

Both are diffusers' DPM-Solver++; what differs is its order:

    ddim   order 1, which is DDIM without noise (eta 0)
    dpmpp  order 2, multistep ("2M"): fewer steps for the same error
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from core.errors import CheckpointError, InputError
from core.registry import Registry

NoiseSchedule = Mapping[str, object]
"""A diffusers scheduler_config.json: betas, prediction type, timestep spacing."""


def make_scheduler(name: str, config: NoiseSchedule, num_steps: int) -> DPMSolverMultistepScheduler:
    """Make a solver for one run; it carries state, so every run gets its own.

    Args:
        name: Registered name.
        config: The noise schedule of the checkpoint.
        num_steps: Denoising steps, at least 1.

    Returns:
        A solver that stands before its first step. Where the schedule ends in pure noise
        (zero terminal SNR), it stands on alpha_bar = 2**-24 instead of 0, which has a logarithm.

    Raises:
        InputError: If the model's timestep spacing has no room for so many steps, or no solver has
            this name.
    """
    scheduler = SCHEDULERS.get(name, param="scheduler")(config)
    longest = scheduler.config["num_train_timesteps"]
    if num_steps <= longest:
        scheduler.set_timesteps(num_steps)
    if num_steps > longest or (scheduler.timesteps.diff() >= 0).any():
        spacing = scheduler.config["timestep_spacing"]
        raise InputError(
            f"{num_steps} steps do not fit on this model's {longest} timesteps with {spacing} "
            "spacing: ask for fewer.",
            param="num_steps",
        )
    scheduler.set_begin_index(0)
    return scheduler


def check_steps(config: NoiseSchedule, name: str, num_steps: int) -> None:
    """Refuse what `make_scheduler` refuses.

    Args:
        config: The noise schedule of the checkpoint.
        name: Registered name; an UnknownNameError if there is none.
        num_steps: Denoising steps; an InputError if there are too many.
    """
    make_scheduler(name, config, num_steps)


def ddim(config: NoiseSchedule) -> DPMSolverMultistepScheduler:
    """Make DDIM without noise.

    diffusers' own DDIMScheduler takes `num_train_timesteps // num_steps` for the gap between any
    two steps. Where the division has a remainder, noise stays behind: at 30 steps a little, at 600
    steps most of the picture's contrast. The first order of DPM-Solver++ is the same update with
    the gaps as they are, and agrees with DDIMScheduler wherever there is no remainder.

    Args:
        config: The noise schedule of the checkpoint.

    Returns:
        A fresh solver without timesteps.

    Source: Song et al. 2021, "Denoising diffusion implicit models", equation 12; its identity
        with the first-order solver: Lu et al. 2022, "DPM-Solver++", section 4.
    """
    return _dpm_solver(config, order=1)


def dpmpp(config: NoiseSchedule) -> DPMSolverMultistepScheduler:
    """Make DPM-Solver++ 2M.

    Args:
        config: The noise schedule of the checkpoint.

    Returns:
        A fresh solver without timesteps.

    Source: Lu et al. 2022, "DPM-Solver++", algorithm 2.
    """
    return _dpm_solver(config, order=2)


def check_noise_schedule(config: NoiseSchedule, file: Path) -> None:
    """Refuse a noise schedule that these solvers would follow wrongly.

    Args:
        config: What a scheduler_config.json holds.
        file: Where it was read from, for the message.

    Raises:
        CheckpointError: If it is no schedule of betas, predicts something else than noise, data or
            velocity, clips the latents, or predicts noise from pure noise.
    """
    if "beta_schedule" not in config:
        raise CheckpointError(
            f"{file} ({config.get('_class_name')}) has no beta_schedule: only models with a "
            "variance-preserving noise schedule are served, not flow matching."
        )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in {"epsilon", "sample", "v_prediction"}:
        raise CheckpointError(
            f"{file} has prediction_type {prediction!r}; served are epsilon, sample, v_prediction."
        )
    if prediction == "epsilon" and config.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            f"{file} predicts noise (epsilon) on a schedule that ends in pure noise "
            "(rescale_betas_zero_snr), where noise tells nothing of the picture: train with "
            "v_prediction, or switch the rescaling off."
        )
    for clip in ("clip_sample", "thresholding"):
        if config.get(clip):
            raise CheckpointError(
                f"{file} has {clip} on, which is for pixels and cuts latents: set it to false."
            )


def _dpm_solver(config: NoiseSchedule, *, order: int) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler.from_config(
        dict(config),
        solver_order=order,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        final_sigmas_type="zero",
        # The variance half of a learned-sigma output is dropped before the solver sees it.
        variance_type=None,
    )


SCHEDULERS: Registry[Callable[[NoiseSchedule], DPMSolverMultistepScheduler]] = Registry("scheduler")
SCHEDULERS.add("ddim", ddim)
SCHEDULERS.add("dpmpp", dpmpp)
