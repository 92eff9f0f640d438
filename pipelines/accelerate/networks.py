"""The three networks of a model behind one interface, and their plain form in torch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipelines.accelerate.execution import Execution
from pipelines.accelerate.memory import Memory
from pipelines.accelerate.torch_attention import KeptWords, fast_attention
from pipelines.attention import RegionalRow, regional_attention, words_stand_still
from pipelines.components import Components
from pipelines.step_cache import CachedPass


class Networks(ABC):
    """What a picture is computed by.

    Every row's numbers depend on that row alone, whatever goes through together with it.

    Args:
        execution: Which backend this is.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Pictures that go together where nothing else is asked for."""

    @abstractmethod
    def encode(self, ids: Int[Tensor, "1 l"]) -> Float[Tensor, "l d"]:
        """Turn the tokens of one text into vectors.

        Args:
            ids: Token numbers, end mark included, no padding.
        """

    @abstractmethod
    def denoise(
        self,
        latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, " b"],
        words: Sequence[Float[Tensor, "_ d"]],
        regions: Sequence[RegionalRow | None],
    ) -> Float[Tensor, "b o h w"]:
        """Run the transformer once.

        Args:
            latents: Noisy latents in float32.
            timesteps: How noisy each row is, 0..999.
            words: What each row hears, unpadded.
            regions: What the regions of each row hear instead; None where it has none.

        Returns:
            The transformer's output in float32, a learned variance included.
        """

    @abstractmethod
    def denoise_cached(
        self,
        latents: Float[Tensor, "1 c h w"],
        timesteps: Int[Tensor, " 1"],
        words: Sequence[Float[Tensor, "_ d"]],
        regions: Sequence[RegionalRow | None],
        cached: CachedPass,
    ) -> Float[Tensor, "1 o h w"]:
        """Run the transformer once for one row, which may skip blocks.

        Args:
            latents: Its noisy latents in float32.
            timesteps: How noisy it is, 0..999.
            words: What it hears, unpadded.
            regions: What its regions hear instead; None where it has none.
            cached: What it kept of earlier steps.

        Returns:
            As `denoise` does.
        """

    @abstractmethod
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 x y"]:
        """Turn latents, on the VAE's own scale, into pixels of about -1..1.

        Args:
            latents: Finished latents in float32.
        """

    @abstractmethod
    def preview(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 x y"]:
        """Turn latents, on the small decoder's own scale, into pixels of about -1..1.

        Args:
            latents: What a step expects, in float32; the model has a small decoder.
        """


class TorchNetworks(Networks):
    """The networks as diffusers and transformers wrote them.

    Attention is computed as is fastest for the shape. Keys and values of the words are computed at
    a picture's first step and kept for the others: the weights must not change meanwhile.

    Args:
        parts: The model's networks.
        latent_factor: Pixels along an edge for one latent cell.
    """

    def __init__(self, parts: Components, latent_factor: int) -> None:
        super().__init__(Execution("torch"))
        self._parts = parts
        self._latent_factor = latent_factor
        self._memory: Memory[KeptWords] = Memory()
        self._keeps_words = words_stand_still(parts.transformer)

    @property
    def num_rows(self) -> int:
        """One on the CPU, where more are no faster and sums might be taken in another order."""
        return 1 if self._parts.device.type == "cpu" else 8

    def encode(self, ids: Int[Tensor, "1 l"]) -> Float[Tensor, "l d"]:
        """One forward pass of the text encoder."""
        ids = ids.to(self._parts.text_encoder.device)
        return self._parts.text_encoder(ids, attention_mask=torch.ones_like(ids))[0][0]

    @torch.no_grad()  # what is kept is read in later passes, whatever records gradients there
    def denoise(
        self,
        latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, " b"],
        words: Sequence[Float[Tensor, "_ d"]],
        regions: Sequence[RegionalRow | None],
    ) -> Float[Tensor, "b o h w"]:
        """One forward pass of the transformer for all rows."""
        transformer = self._parts.transformer
        kept = self._memory.recall(words, partial(KeptWords, words))
        stacked = kept.stacked
        # Rows with regions keep keys and values of their own, and those without change places.
        known = kept.keys_values if self._keeps_words and not any(regions) else None
        with fast_attention(transformer, known), regional_attention(transformer, regions):
            return transformer(
                latents.to(self._parts.dtype),
                encoder_hidden_states=stacked.vectors,
                encoder_attention_mask=stacked.mask,
                timestep=timesteps.to(latents.device),
                added_cond_kwargs=self._micro_conditions(latents),
                return_dict=False,
            )[0].float()

    def denoise_cached(
        self,
        latents: Float[Tensor, "1 c h w"],
        timesteps: Int[Tensor, " 1"],
        words: Sequence[Float[Tensor, "_ d"]],
        regions: Sequence[RegionalRow | None],
        cached: CachedPass,
    ) -> Float[Tensor, "1 o h w"]:
        """One forward pass of the transformer, or of its first block."""
        with cached.attached(self._parts.transformer):
            return self.denoise(latents, timesteps, words, regions)

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 x y"]:
        """One forward pass of the decoder."""
        return self._parts.vae.decode(latents.to(self._parts.dtype), return_dict=False)[0].float()

    def preview(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 x y"]:
        """One forward pass of the small decoder."""
        assert self._parts.preview is not None  # asked of models that have one
        decoded = self._parts.preview.decode(latents.to(self._parts.dtype), return_dict=False)
        return decoded[0].float()

    def _micro_conditions(self, latents: Float[Tensor, "b c h w"]) -> dict[str, Tensor | None]:
        if not self._parts.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (edge * self._latent_factor for edge in latents.shape[-2:])
        make = partial(torch.tensor, dtype=self._parts.dtype, device=latents.device)
        return {
            "resolution": make([height, width]).repeat(len(latents), 1),
            "aspect_ratio": make([height / width]).repeat(len(latents), 1),
        }
