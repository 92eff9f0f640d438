"""What a checkpoint says of noise, and the solvers that may follow it; known without torch.

Both solvers are diffusers' DPM-Solver++ and differ in their order:

    ddim   order 1, which is DDIM without noise (eta 0)
    dpmpp  order 2, multistep ("2M"): fewer steps for the same error

diffusers' own DDIMScheduler takes `num_train_timesteps // num_steps` for the gap between any two
steps. Where the division has a remainder, noise stays behind: at 30 steps a little, at 600 steps
most of the picture's contrast. The first order of DPM-Solver++ is the same update with the gaps as
they are, and agrees with DDIMScheduler wherever there is no remainder.

Source: Song et al. 2021, "Denoising diffusion implicit models", equation 12; its identity with the
    first-order solver: Lu et al. 2022, "DPM-Solver++", section 4; the second order: algorithm 2.
"""

from collections.abc import Mapping
from pathlib import Path

from core.errors import CheckpointError
from core.registry import Registry

NoiseSchedule = Mapping[str, object]
"""A diffusers scheduler_config.json: betas, prediction type, timestep spacing."""

SCHEDULERS: Registry[int] = Registry("scheduler")
"""Order of DPM-Solver++ by the name that a request may give."""
SCHEDULERS.add("ddim", 1)
SCHEDULERS.add("dpmpp", 2)


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
