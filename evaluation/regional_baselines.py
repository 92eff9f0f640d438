"""Other ways to put words into places, to compare with: rebuilt from their papers' formulas."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pipelines.regional_forms import KeysValues, Mixer
from pipelines.regions import token_weights
from pipelines.rows import RowPainter
from pipelines.spec import GenerationResult, GenerationSpec
from pipelines.text_to_image import TextToImage


class LatentMixer:
    """Paints regions by one whole forward pass each, and mixes what they predict.

    Args:
        model: The model; its own regional attention is not used.

    Source:
        Bar-Tal et al. 2023, "MultiDiffusion", equation 5, with regions as masks and the ground
        (or else the prompt) where none is. Differs: predictions are mixed, which for a solver that
        is linear in them is mixing its steps; no random backgrounds in the first steps.
    """

    def __init__(self, model: TextToImage) -> None:
        self._painter = RowPainter(model)

    def generate(self, specs: Sequence[GenerationSpec]) -> list[GenerationResult]:
        """Return one picture per specification, in order.

        Args:
            specs: What to paint; depth map, window and base share are not used.
        """
        return [self._paint(spec) for spec in specs]

    @torch.inference_mode()
    def _paint(self, spec: GenerationSpec) -> GenerationResult:
        step = self.stepper(spec)
        row = self._painter.begin(_without_regions(spec))
        for _ in range(spec.num_steps):
            timestep = row.scheduler.timesteps[row.num_done]
            prediction = step(row.latents, timestep, row.num_done / spec.num_steps)
            self._painter.apply(row, prediction)
        info = self._painter.info
        return GenerationResult(
            image=self._painter.decode([row])[0],
            spec=spec,
            model=info.name,
            revision=info.revision,
        )

    @torch.inference_mode()
    def stepper(
        self, spec: GenerationSpec
    ) -> Callable[[Float[Tensor, "1 c h w"], Tensor, float], Float[Tensor, "1 c h w"]]:
        """Encode the words of a picture and return its prediction at a step.

        Args:
            spec: A picture with regions.

        Returns:
            A function from latents, timestep and progress to the mixed prediction.
        """
        model, plain = self._painter.model, _without_regions(spec)
        behind = spec.ground or spec.prompt
        texts = [behind, *(region.words("both") for region in spec.regions)]
        heard = [model.prepare(replace(plain, prompt=text)) for text in texts]
        factor = model.info.latent_factor
        weights = token_weights(
            spec.regions, width=spec.width, height=spec.height, token_px=factor
        ).view(-1, 1, spec.height // factor, spec.width // factor)

        def predict(
            latents: Float[Tensor, "1 c h w"], timestep: Tensor, progress: float
        ) -> Float[Tensor, "1 c h w"]:
            # One pass each, as pictures go one by one on a CPU; together they are as many rows.
            passes = [
                model.predict(latents, timestep.expand(1), [each], [progress]) for each in heard
            ]
            return (weights.to(latents.device) * torch.cat(passes)).sum(0, keepdim=True)

        return predict


def joined(keys_values: Sequence[KeysValues], weights: Float[Tensor, "texts n"]) -> Mixer:
    """Let a token hear the prompt and its region's words in one softmax, by an attention mask.

    Args:
        keys_values: Words of each text, the prompt's first.
        weights: How much each token hears each text; what it hears at all is not masked.

    Returns:
        A function from queries to what each token heard.

    Source: InvokeAI's masks for SD and SDXL, where the prompt competes with a region's words.
    """
    key, value = (torch.cat(parts, dim=2) for parts in zip(*keys_values, strict=True))
    lengths = torch.tensor([k.shape[2] for k, _ in keys_values], device=weights.device)
    heard = weights > 0
    heard[0] = True
    mask = heard.repeat_interleave(lengths, dim=0).T
    return lambda query: F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _without_regions(spec: GenerationSpec) -> GenerationSpec:
    return replace(spec, regions=(), plan="")
