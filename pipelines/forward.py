"""One forward pass: pictures at any steps, with any words, guidance and regions, together."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.classifier_free import guided
from pipelines.accelerate.networks import Networks
from pipelines.attention import RegionalRow
from pipelines.guidance import Guide
from pipelines.heard import Heard
from pipelines.invariance import padded_length
from pipelines.step_cache import CachedPass, StepCache


class Forward:
    """Asks the transformer once what pictures hide.

    Args:
        networks: What computes it.
        patch_size: Latent cells along the edge of an image token, to count tokens.
    """

    def __init__(self, networks: Networks, patch_size: int) -> None:
        self._networks = networks
        self._patch_size = patch_size

    def __call__(
        self,
        latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, " b"],
        heard: Sequence[Heard],
        progress: Sequence[float],
        guides: Sequence[Guide] | None = None,
        *,
        caches: Sequence[StepCache] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Predict, under guidance by a second row for each picture that asks for it at this step.

        Args:
            latents: Noisy latents, one picture each.
            timesteps: How noisy each is, 0..999.
            heard: What each hears.
            progress: Steps done over steps in all, of each.
            guides: What each remembers of its guidance; None asks for it at every step.
            caches: What each keeps of its blocks; None computes all of them.

        Returns:
            What the model was trained to predict: noise, data or velocity.
        """
        kept = [None] * len(heard) if guides is None else _recalled(guides, progress)
        asking = [
            place
            for place, each in enumerate(heard)
            if each.negative is not None and kept[place] is None
        ]
        words = [heard[place].negative for place in asking] + [each.prompt for each in heard]
        acts = [each.regions_act(share) for each, share in zip(heard, progress, strict=True)]
        regions = [heard[place].without if acts[place] else None for place in asking]
        regions += [each.with_words if act else None for each, act in zip(heard, acts, strict=True)]
        places = [*asking, *range(len(heard))]
        is_plain_batch = places == list(range(len(heard)))
        inputs = latents if is_plain_batch else latents[places]
        texts = [text for text in words if text is not None]
        self._count(inputs, texts)
        sides = [(row < len(asking), acts[place]) for row, place in enumerate(places)]
        cached = [
            caches[place].begin(side, progress[place]) if caches else None
            for side, place in zip(sides, places, strict=True)
        ]
        times = timesteps[places].to(inputs.device)
        output = self._denoise(inputs, times, texts, regions, cached)
        # A model that learned its variance predicts it in a second half, which no solver here uses.
        output = output[:, : latents.shape[1]]
        without, with_words = output[: len(asking)], output[len(asking) :]
        if not asking and all(each is None for each in kept):
            return with_words
        mixed = with_words.clone()
        for place, unconditional in zip(asking, without, strict=True):
            mixed[place] = _mix(heard[place], with_words[place], unconditional)
            if guides:
                guides[place].keep(with_words[place] - unconditional, progress[place])
        for place, difference in enumerate(kept):
            if difference is not None:
                mixed[place] = _mix(heard[place], with_words[place], with_words[place] - difference)
        return mixed

    def _denoise(
        self,
        latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, " b"],
        words: Sequence[Float[Tensor, "_ d"]],
        regions: Sequence[RegionalRow | None],
        cached: Sequence[CachedPass | None],
    ) -> Float[Tensor, "b o h w"]:
        """Run rows that skip nothing together, and each other one by itself."""
        alone = {row: each for row, each in enumerate(cached) if each is not None}
        if not alone:
            return self._networks.denoise(latents, timesteps, words, regions)
        together = [row for row in range(len(words)) if row not in alone]
        outputs: dict[int, Tensor] = {}
        if together:
            found = self._networks.denoise(
                latents[together],
                timesteps[together],
                [words[row] for row in together],
                [regions[row] for row in together],
            )
            outputs.update(zip(together, found.split(1), strict=True))
        for row, begun in alone.items():
            own = slice(row, row + 1)
            outputs[row] = self._networks.denoise_cached(
                latents[own], timesteps[own], words[own], regions[own], begun
            )
            begun.cache.keep(begun)
            self._networks.execution.count(cached_passes=int(begun.is_reused))
        return torch.cat([outputs[row] for row in range(len(words))])

    def _count(
        self, inputs: Float[Tensor, "b c h w"], texts: Sequence[Float[Tensor, "_ d"]]
    ) -> None:
        num_rows, _, height, width = inputs.shape
        num_word_tokens = sum(map(len, texts))
        self._networks.execution.count(
            image_tokens=num_rows * (height // self._patch_size) * (width // self._patch_size),
            word_tokens=num_word_tokens,
            padding_tokens=num_rows * padded_length(max(map(len, texts))) - num_word_tokens,
        )


def _mix(
    heard: Heard, with_words: Float[Tensor, "c h w"], without: Float[Tensor, "c h w"]
) -> Float[Tensor, "c h w"]:
    scale, rescale = heard.guidance_scale, heard.guidance_rescale
    return guided(with_words, without, scale=scale, rescale=rescale)


def _recalled(
    guides: Sequence[Guide], progress: Sequence[float]
) -> list[Float[Tensor, "c h w"] | None]:
    return [guide.recall(share) for guide, share in zip(guides, progress, strict=True)]
