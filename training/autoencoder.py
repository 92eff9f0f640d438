"""The picture autoencoder: 128 x 128 x 3 pixels to 16 x 16 x 12 latents and back.

Trained on random crops, which costs an eighth of whole pictures: nothing it learns is larger than
a crop. A deep-compression autoencoder without attention, whose first layer unshuffles pixels, so
no layer works at full resolution.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC
from jaxtyping import Float, UInt8
from torch import Tensor

from core.seeding import numpy_generator
from scenes.compose import Scene, render, sample_scene
from scenes.sprites import SpriteSheet
from scenes.vocabulary import CANVAS_PX
from training.method import Batch, Method, Phase, StepOutput
from training.recorders import save_grid

LATENT_CHANNELS = 12
LATENT_FACTOR = 8
WIDTHS = (24, 48, 96, 192)


class AutoencoderMethod(Method):
    """Reconstruction with a noisy bottleneck.

    The latent is a Gaussian of fixed spread: noise is added before decoding and the mean is pulled
    to zero, which is the variational bound with a constant posterior variance. The decoder so
    learns to forgive the small errors that a diffusion model will make.

    Args:
        autoencoder: The network.
        noise: Standard deviation of the posterior, in latent units.
        pull: Weight of the squared latent mean.
        edges: Weight of the absolute error of differences between neighbouring pixels, without
            which fine textures, and with them styles, are smoothed away.
        keeps_encoder: Train the decoder alone. Latents stay what they are, and so does the meaning
            of whatever was trained on them.

    Source:
        Kingma and Welling, arXiv 1312.6114, section 2.3. Differs: fixed posterior variance; mean of
        absolute and squared pixel error, and of their differences, in place of a likelihood.
    """

    def __init__(
        self,
        autoencoder: AutoencoderDC,
        *,
        noise: float = 0.1,
        pull: float = 3e-4,
        edges: float = 1.0,
        keeps_encoder: bool = False,
    ) -> None:
        super().__init__({"encoder": autoencoder.encoder, "decoder": autoencoder.decoder})
        trains = {"decoder"} if keeps_encoder else {"encoder", "decoder"}
        self.phases = (Phase(name="reconstruct", trains=frozenset(trains)),)
        self.encode, self.decode = autoencoder.encode, autoencoder.decode
        self._noise, self._pull, self._edges = noise, pull, edges

    def step(self, phase: str, batch: Batch, generator: torch.Generator) -> StepOutput:  # noqa: ARG002
        """Return the reconstruction loss of a batch of crops."""
        pixels: Tensor = batch["pixels"].contiguous(memory_format=torch.channels_last)
        latent = self.encode(pixels).latent.float()
        noise = torch.randn(latent.shape, generator=generator).to(latent.device)
        decoded = self.decode(latent + self._noise * noise).sample.float()
        absolute = F.l1_loss(decoded, pixels)
        squared = F.mse_loss(decoded, pixels)
        across, down = (F.l1_loss(decoded.diff(dim=d), pixels.diff(dim=d)) for d in (-1, -2))
        edges = across + down
        size = latent.square().mean()
        return StepOutput(
            loss=absolute + 2 * squared + self._edges * edges + self._pull * size,
            metrics={
                "absolute": absolute.detach(),
                "edges": edges.detach(),
                "psnr": 10 * torch.log10(4 / squared.detach()),
                "latent_std": latent.detach().std(),
            },
        )


class CropSource:
    """Crops of freshly drawn training scenes; two of three hold an object's centre.

    Args:
        sheet: Where sprites come from.
        batch_size: Crops a batch.
        crop_px: Side of a crop, divisible by 8.
        crops_per_scene: Crops cut from one scene.
        seed: Seed of the scenes and the cuts.
    """

    def __init__(
        self,
        sheet: SpriteSheet,
        *,
        batch_size: int,
        crop_px: int = 64,
        crops_per_scene: int = 4,
        seed: int = 0,
    ) -> None:
        self._sheet, self._batch_size, self._crop_px = sheet, batch_size, crop_px
        self._crops_per_scene, self._seed = crops_per_scene, seed

    def __call__(self, step: int) -> Batch:
        """Return the crops of a step, in -1..1.

        Args:
            step: From 0.
        """
        rng = numpy_generator(self._seed, "crops", step)
        crops: list[UInt8[np.ndarray, "s s 3"]] = []
        while len(crops) < self._batch_size:
            scene = sample_scene(int(rng.integers(2**62)), split="train", sheet=self._sheet)
            picture = render(scene, self._sheet)
            num_cuts = min(self._crops_per_scene, self._batch_size - len(crops))
            crops.extend(self._cut(picture, scene, rng) for _ in range(num_cuts))
        return {"pixels": to_tensor(np.stack(crops))}

    def _cut(
        self, picture: UInt8[np.ndarray, "h w 3"], scene: Scene, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "s s 3"]:
        last = CANVAS_PX - self._crop_px
        left, top = (int(v) for v in rng.integers(0, last + 1, size=2))
        if rng.random() < 2 / 3:
            box = scene.objects[int(rng.integers(len(scene.objects)))].box
            jitter = rng.integers(-20, 21, size=2)
            centre = ((box.x0 + box.x1) / 2 * CANVAS_PX, (box.y0 + box.y1) / 2 * CANVAS_PX)
            left, top = (
                int(np.clip(round(centre[axis]) - self._crop_px // 2 + jitter[axis], 0, last))
                for axis in range(2)
            )
        return picture[top : top + self._crop_px, left : left + self._crop_px]


class ReconstructionSampler:
    """Draws unseen scenes above their reconstructions, and measures PSNR.

    Args:
        sheet: Where sprites come from.
        reconstruct: Takes the method and pictures in -1..1 and returns them as they come back.
        num_scenes: How many scenes are measured; the first 16 are drawn.
    """

    def __init__(
        self,
        sheet: SpriteSheet,
        reconstruct: Callable[[Method, Tensor], Tensor],
        *,
        num_scenes: int = 64,
    ) -> None:
        scenes = [sample_scene(seed, split="seen", sheet=sheet) for seed in range(num_scenes)]
        self._pixels = to_tensor(np.stack([render(scene, sheet) for scene in scenes]))
        self._reconstruct = reconstruct

    def __call__(self, method: Method, path: Path) -> Mapping[str, float]:
        """Write the comparison and return the mean PSNR over whole unseen pictures."""
        device = next(method.parameters()).device
        parts = [self._reconstruct(method, part.to(device)).cpu() for part in self._pixels.split(8)]
        decoded = torch.cat(parts).clamp(-1, 1)
        errors = (decoded - self._pixels).square().mean(dim=(1, 2, 3))
        pairs = [
            to_images(each[start : start + 8])
            for start in (0, 8)
            for each in (self._pixels, decoded)
        ]
        save_grid([image for row in pairs for image in row], 8, path)
        return {"unseen_psnr": float((10 * torch.log10(4 / errors)).mean())}


def reconstruct(method: Method, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Return pictures after the autoencoder that is trained.

    Args:
        method: An `AutoencoderMethod`.
        pixels: In -1..1.
    """
    autoencoder = cast("AutoencoderMethod", method)
    return autoencoder.decode(autoencoder.encode(pixels).latent).sample


def latent_of(
    autoencoder: Any,  # noqa: ANN401 - a diffusers autoencoder
    pixels: Float[Tensor, "b 3 height width"],
) -> Float[Tensor, "b c h w"]:
    """Return the latents of pictures; of a random autoencoder the likeliest ones.

    Args:
        autoencoder: AutoencoderDC or AutoencoderKL.
        pixels: In -1..1, on its device.
    """
    encoded = autoencoder.encode(pixels)
    latent: Tensor = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    return latent.float()


def new_autoencoder() -> AutoencoderDC:
    """Return an untrained autoencoder of the shipped shape."""
    autoencoder = AutoencoderDC(
        in_channels=3,
        latent_channels=LATENT_CHANNELS,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=WIDTHS,
        decoder_block_out_channels=WIDTHS,
        encoder_layers_per_block=(0, 1, 2, 2),
        decoder_layers_per_block=(0, 2, 2, 3),
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        downsample_block_type="pixel_unshuffle",
        upsample_block_type="pixel_shuffle",
    )
    # PixArt pipelines of stock diffusers read the latent factor off this field, which belongs to
    # AutoencoderKL; AutoencoderDC keeps and ignores it.
    autoencoder.register_to_config(block_out_channels=list(WIDTHS))
    return autoencoder.to(memory_format=torch.channels_last)


def to_tensor(images: UInt8[np.ndarray, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Return 8-bit pictures as a tensor in -1..1.

    Args:
        images: Channel last.
    """
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Float[Tensor, "b 3 h w"]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Return a tensor in -1..1 as 8-bit pictures.

    Args:
        pixels: Values outside -1..1 are clipped.
    """
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).cpu().numpy())
