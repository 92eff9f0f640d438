"""One forward pass: pictures at any steps, with any words, guidance and regions, together."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipelines.accelerate.networks import Networks
from pipelines.heard import Heard


class Forward:
    """Asks the transformer once what pictures hide.

    Args:
        networks: What computes it.
    """

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def __call__(
        self,
        latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, " b"],
        heard: Sequence[Heard],
        progress: Sequence[float],
    ) -> Float[Tensor, "b c h w"]:
        """Predict, under guidance by a second row for each guided picture.

        Args:
            latents: Noisy latents, one picture each.
            timesteps: How noisy each is, 0..999.
            heard: What each hears.
            progress: Steps done over steps in all, of each.

        Returns:
            What the model was trained to predict: noise, data or velocity.

        Source: Ho and Salimans 2022, "Classifier-free diffusion guidance", equation 6, written as
            uncond + scale * (cond - uncond).
        """
        guided = [place for place, each in enumerate(heard) if each.negative is not None]
        words = [heard[place].negative for place in guided] + [each.prompt for each in heard]
        acts = [each.regions_act(share) for each, share in zip(heard, progress, strict=True)]
        regions = [heard[place].without if acts[place] else None for place in guided]
        regions += [each.with_words if act else None for each, act in zip(heard, acts, strict=True)]
        places = [*guided, *range(len(heard))]
        is_plain_batch = places == list(range(len(heard)))
        inputs = latents if is_plain_batch else latents[places]
        output = self._networks.denoise(
            inputs,
            timesteps[places].to(inputs.device),
            [text for text in words if text is not None],
            regions,
        )
        # A model that learned its variance predicts it in a second half, which no solver here uses.
        output = output[:, : latents.shape[1]]
        without, with_words = output[: len(guided)], output[len(guided) :]
        if not guided:
            return with_words
        scales = [heard[place].guidance_scale for place in guided]
        strength = torch.tensor(scales, device=output.device).view(-1, 1, 1, 1)
        if len(guided) == len(heard):
            return without + strength * (with_words - without)
        mixed = with_words.clone()
        mixed[guided] = without + strength * (with_words[guided] - without)
        return mixed
