"""The noise schedule as arithmetic: pictures, noise and velocity, and DDIM jumps between times.

A noisy picture is z = a x + s e with a^2 + s^2 = 1; the network says v = a e - s x. Time -1 is the
clean picture. diffusers' schedulers hold the same numbers, but step one time for a whole batch;
here every sample of a batch stands at a time of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.errors import CheckpointError

CLEAN = -1


class NoiseSchedule(nn.Module):
    """Times, signal and noise of a velocity-predicting model.

    Args:
        config: What its scheduler_config.json holds.

    Attributes:
        num_times: Times from clean to pure noise, 1000 as a rule.

    Raises:
        CheckpointError: If the model predicts something else than velocity, or its steps do not
            begin at pure noise: one step from there has nothing to say.

    Source:
        Salimans and Ho, arXiv 2202.00512, appendix D; Lin et al., arXiv 2305.08891, section 3.
    """

    signal: Tensor
    noise: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        prediction = config.get("prediction_type", "epsilon")
        if prediction != "v_prediction":
            raise CheckpointError(
                f"The teacher predicts {prediction!r}: only v_prediction can be distilled to one "
                "step, where noise tells nothing of the picture. Train the teacher further with "
                "v_prediction.",
                param="scheduler.prediction_type",
            )
        if config.get("timestep_spacing") != "trailing":
            raise CheckpointError(
                f"The teacher's steps are spaced {config.get('timestep_spacing')!r}: a few-step "
                "student starts at pure noise, so set timestep_spacing to 'trailing'.",
                param="scheduler.timestep_spacing",
            )
        kept = DDIMScheduler.from_config(dict(config)).alphas_cumprod.double()
        if kept[-1] > 1e-6:
            raise CheckpointError(
                "The teacher's schedule does not end in pure noise, where a student starts: set "
                "rescale_betas_zero_snr to true and train it so.",
                param="scheduler.rescale_betas_zero_snr",
            )
        # One more entry at the end, which index -1 finds: the clean picture, exactly.
        shares = torch.cat([kept, torch.ones(1, dtype=kept.dtype)])
        self.num_times = len(kept)
        self.register_buffer("signal", shares.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - shares).sqrt().float(), persistent=False)

    def grid(self, num_steps: int) -> Int[Tensor, "_"]:
        """Return the times of so many steps, from pure noise to clean: one more than steps.

        Args:
            num_steps: At least 1.
        """
        share = torch.arange(num_steps, -1, -1, dtype=torch.float64) / num_steps
        return (share * self.num_times).round().long() - 1

    def mix(
        self,
        clean: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "b c h w"],
        times: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """Return pictures as noisy as their times say.

        Args:
            clean: Pictures.
            noise: Standard normal.
            times: One per picture.
        """
        signal, spread = self.at(times)
        return signal * clean + spread * noise

    def clean(
        self,
        noisy: Float[Tensor, "b c h w"],
        velocity: Float[Tensor, "b c h w"],
        times: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """Return the picture that a velocity stands for.

        Args:
            noisy: Where the network looked.
            velocity: What it said.
            times: One per picture.
        """
        signal, spread = self.at(times)
        return signal * noisy - spread * velocity

    def jump(
        self,
        noisy: Float[Tensor, "b c h w"],
        clean: Float[Tensor, "b c h w"],
        times: Int[Tensor, " b"],
        ends: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """Return where one DDIM step without fresh noise leads.

        Args:
            noisy: Where the step starts.
            clean: The picture that is believed to be hidden in it.
            times: Where it starts, per picture.
            ends: Where it ends, earlier in time.

        Source:
            Song et al., arXiv 2010.02502, equation 12 with sigma 0.
        """
        signal, spread = self.at(times)
        signal_end, spread_end = self.at(ends)
        return signal_end * clean + spread_end / spread * (noisy - signal * clean)

    def believed(
        self,
        noisy: Float[Tensor, "b c h w"],
        arrived: Float[Tensor, "b c h w"],
        times: Int[Tensor, " b"],
        ends: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """Return the picture that `jump` would need to arrive where it arrived: its inverse.

        Args:
            noisy: Where the step starts.
            arrived: Where it ends.
            times: Where it starts in time.
            ends: Where it ends in time.

        Source:
            Salimans and Ho, arXiv 2202.00512, appendix G.
        """
        signal, spread = self.at(times)
        signal_end, spread_end = self.at(ends)
        ratio = spread_end / spread
        return (arrived - ratio * noisy) / (signal_end - ratio * signal)

    def truncated_snr(self, times: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return max(signal / noise, 1) in power: the larger of picture and noise error.

        Args:
            times: One per picture, none clean.

        Source:
            Salimans and Ho, arXiv 2202.00512, equation 9.
        """
        signal, spread = self.at(times)
        return (signal / spread).square().clamp(min=1).flatten()

    def at(
        self, times: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """Return signal and noise at some times, shaped to multiply pictures.

        Args:
            times: From -1 (clean) to the last time.
        """
        return self.signal[times].view(-1, 1, 1, 1), self.noise[times].view(-1, 1, 1, 1)
