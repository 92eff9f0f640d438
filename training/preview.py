"""The small autoencoder that previews are decoded by: a third of the big one's work.

It speaks the big one's latents, on the scale that the transformer sees, so either part may stand in
for the big one's. What is lost is texture; what a picture will show can be told.
"""

from typing import cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, AutoencoderTiny
from jaxtyping import Float
from torch import Tensor

from training.autoencoder import LATENT_CHANNELS
from training.method import Batch, Method, Phase, StepOutput

WIDTH = 16


class PreviewMethod(Method):
    """A small autoencoder learns the latents and the pictures of a big one.

    Args:
        preview: Learns.
        teacher: The big one; its scaling factor is set, and it never moves.

    Source:
        Bohan, "Tiny AutoEncoder for Stable Diffusion" (TAESD): the encoder learns the big one's
        latents, the decoder pictures from them. Differs: absolute and squared error of pictures
        alone, no adversary.
    """

    phases = (Phase(name="imitate", trains=frozenset({"encoder", "decoder"})),)

    def __init__(self, preview: AutoencoderTiny, teacher: AutoencoderDC) -> None:
        super().__init__(
            {"encoder": preview.encoder, "decoder": preview.decoder, "teacher": teacher.encoder}
        )
        self.encode, self.decode = preview.encode, preview.decode
        self._taught, self._scale = teacher.encode, float(teacher.config["scaling_factor"])

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the error of latents and pictures on a batch of crops."""
        pixels: Tensor = batch["pixels"].contiguous(memory_format=torch.channels_last)
        latents = self.latents(pixels)
        decoded = self.decode(latents).sample.float()
        told = F.mse_loss(self.encode(pixels).latents.float(), latents)
        absolute, squared = F.l1_loss(decoded, pixels), F.mse_loss(decoded, pixels)
        return StepOutput(
            loss=absolute + 2 * squared + 0.1 * told,
            metrics={
                "absolute": absolute.detach(),
                "latents": told.detach(),
                "psnr": 10 * torch.log10(4 / squared.detach()),
            },
        )

    @torch.no_grad()
    def latents(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c x y"]:
        """Return what the big one makes of pictures, on the transformer's scale.

        Args:
            pixels: In -1..1.
        """
        return self._taught(pixels).latent.float() * self._scale


def preview_of(method: Method, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Return pictures as the small decoder makes them of the big encoder's latents.

    Args:
        method: A `PreviewMethod`.
        pixels: In -1..1.
    """
    preview = cast("PreviewMethod", method)
    return preview.decode(preview.latents(pixels)).sample


def new_preview(*, width: int = WIDTH, latent_channels: int = LATENT_CHANNELS) -> AutoencoderTiny:
    """Return an untrained small autoencoder of the shipped shape.

    Args:
        width: Channels of all its levels.
        latent_channels: The big one's.
    """
    preview = AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(2, 2, 1, 1),
        latent_channels=latent_channels,
    )
    return preview.to(memory_format=torch.channels_last)
