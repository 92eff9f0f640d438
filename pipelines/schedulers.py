"""A solver for one run, on the noise schedule that the model was trained with."""

import json
from copy import deepcopy
from functools import lru_cache

from diffusers.configuration_utils import FrozenDict
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from core.errors import InputError
from pipelines.noise_schedule import SCHEDULERS, NoiseSchedule


def make_scheduler(name: str, config: NoiseSchedule, num_steps: int) -> DPMSolverMultistepScheduler:
    """Make a solver for one run; it carries state, so every run gets its own.

    One that stood before the same steps is copied, which takes a tenth of the 2 ms; its tables and
    settings, which nobody changes, are shared.

    Args:
        name: Registered name.
        config: The noise schedule of the checkpoint.
        num_steps: Denoising steps, at least 1.

    Returns:
        A solver that stands before its first step. Where the schedule ends in pure noise
        (zero terminal SNR), it stands on alpha_bar = 2**-24 instead of 0, which has a logarithm.
        Steps that the model's timestep spacing has no room for are an InputError.
    """
    standing = _at_first_step(name, json.dumps(dict(config)), num_steps)
    shared = (each for each in vars(standing).values() if isinstance(each, Tensor | FrozenDict))
    return deepcopy(standing, {id(each): each for each in shared})


def check_steps(config: NoiseSchedule, name: str, num_steps: int) -> None:
    """Refuse what `make_scheduler` refuses.

    Args:
        config: The noise schedule of the checkpoint.
        name: Registered name; an UnknownNameError if there is none.
        num_steps: Denoising steps; an InputError if there are too many.
    """
    _at_first_step(name, json.dumps(dict(config)), num_steps)


@lru_cache(maxsize=64)
def _at_first_step(name: str, config: str, num_steps: int) -> DPMSolverMultistepScheduler:
    scheduler = _dpm_solver(json.loads(config), order=SCHEDULERS.get(name, param="scheduler"))
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


def _dpm_solver(config: NoiseSchedule, *, order: int) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler.from_config(
        config,
        solver_order=order,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        final_sigmas_type="zero",
        # The variance half of a learned-sigma output is dropped before the solver sees it.
        variance_type=None,
    )
