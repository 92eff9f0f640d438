"""One forward pass: pictures at any steps, with any words, guidance and regions, together."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipelines.attention import regional_attention
from pipelines.components import Components
from pipelines.conditioning import stack_words
from pipelines.heard import Heard


class Forward:
    """Asks the transformer once what pictures hide.

    Args:
        parts: The model's networks.
        latent_factor: Pixels along an edge for one latent cell.
    """

    def __init__(self, parts: Components, latent_factor: int) -> None:
        self._transformer = parts.transformer
        self._dtype = parts.dtype
        self._latent_factor = latent_factor

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
        stacked = stack_words([text for text in words if text is not None])
        with regional_attention(self._transformer, regions):
            output = self._transformer(
                inputs.to(self._dtype),
                encoder_hidden_states=stacked.vectors,
                encoder_attention_mask=stacked.mask,
                timestep=timesteps[places].to(inputs.device),
                added_cond_kwargs=self._micro_conditions(inputs),
                return_dict=False,
            )[0].float()
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

    def _micro_conditions(self, inputs: Float[Tensor, "b c h w"]) -> dict[str, Tensor | None]:
        if not self._transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (edge * self._latent_factor for edge in inputs.shape[-2:])
        make = partial(torch.tensor, dtype=self._dtype, device=inputs.device)
        return {
            "resolution": make([height, width]).repeat(len(inputs), 1),
            "aspect_ratio": make([height / width]).repeat(len(inputs), 1),
        }
