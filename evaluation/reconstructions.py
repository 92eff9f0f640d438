"""What an autoencoder keeps of a scene: whether the judge still reads it, and how near it comes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from core.progress import track
from evaluation.intervals import Rate, wilson
from scenes.compose import render, sample_scene
from scenes.readings import Judge, reads_exactly
from scenes.sprites import SpriteSheet
from training.autoencoder import latent_of, to_images, to_tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconstructions:
    """How well pictures survive an autoencoder.

    Attributes:
        readable: Scenes read exactly after the autoencoder, of those read exactly before it.
        num_read: Scenes that the judge read exactly before it.
        psnr_db: Mean peak signal to noise ratio over all scenes, in dB.
    """

    readable: Rate
    num_read: int
    psnr_db: float


def judge_reconstructions(
    autoencoder: nn.Module, judge: Judge, sheet: SpriteSheet, *, num_scenes: int, seed: int = 0
) -> Reconstructions:
    """Encode and decode scenes that training never met, and let the judge read both.

    Args:
        autoencoder: A diffusers autoencoder, on the CPU.
        judge: Reads the pictures; what it cannot read untouched says nothing of the autoencoder.
        sheet: Where sprites come from.
        num_scenes: Scenes, at least 1.
        seed: First seed of the scenes, from the test split.
    """
    read = kept = 0
    decibels = []
    seeds = range(seed, seed + num_scenes)
    for each in track(seeds, "Reading reconstructions", unit="scenes"):
        scene = sample_scene(each, split="seen", sheet=sheet)
        picture = render(scene, sheet)
        again = reconstruct(autoencoder, picture)
        error = np.square(picture.astype(float) - again).mean()
        decibels.append(10 * np.log10(255**2 / max(error, 1e-3)))
        if reads_exactly(judge.read(picture), scene):
            read += 1
            kept += reads_exactly(judge.read(again), scene)
    return Reconstructions(
        readable=wilson(kept, read), num_read=read, psnr_db=float(np.mean(decibels))
    )


def reconstruct(
    autoencoder: Any,  # noqa: ANN401 - a diffusers autoencoder
    picture: UInt8[np.ndarray, "h w 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture after the autoencoder.

    Args:
        autoencoder: A diffusers autoencoder; of a random one the most likely latent is taken.
        picture: RGB.
    """
    with torch.inference_mode():
        latent = latent_of(autoencoder, to_tensor(np.array(picture)[None]))
        (decoded,) = to_images(autoencoder.decode(latent).sample)
    return decoded
