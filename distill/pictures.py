"""What people look at while students learn: fixed prompts and seeds, through stock diffusers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
)
from jaxtyping import UInt8
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from core.seeding import torch_generator
from training.method import Method
from training.recorders import save_grid
from training.teacher import SAMPLE_PROMPTS

COLUMNS = 4


class CaptionPainter:
    """Paints prompts with any transformer that shares words and pixels with a teacher.

    Args:
        tokenizer: The teacher's.
        text_encoder: The teacher's.
        autoencoder: The teacher's.
        schedule: What its scheduler_config.json holds.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
        autoencoder: AutoencoderDC | AutoencoderKL,
        schedule: Mapping[str, Any],
    ) -> None:
        self._tokenizer, self._text_encoder = tokenizer, text_encoder
        self._autoencoder, self._schedule = autoencoder, schedule

    def paint(
        self,
        transformer: PixArtTransformer2DModel,
        prompts: Sequence[str],
        *,
        num_steps: int,
        guidance: float = 1.0,
    ) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Return one picture per prompt, the first from seed 0, the next from seed 1.

        Args:
            transformer: Teacher or student.
            prompts: What to paint.
            num_steps: DDIM steps.
            guidance: Classifier-free guidance; 1 for none.
        """
        device = next(transformer.parameters()).device
        pipeline = PixArtAlphaPipeline(
            tokenizer=self._tokenizer,
            text_encoder=self._text_encoder.to(device),
            vae=self._autoencoder.to(device),
            transformer=transformer,
            scheduler=DDIMScheduler.from_config(dict(self._schedule)),
        )
        pipeline.set_progress_bar_config(disable=True)
        with torch.no_grad():
            images = pipeline(
                list(prompts),
                num_inference_steps=num_steps,
                guidance_scale=guidance,
                generator=[torch_generator(seed) for seed in range(len(prompts))],
                use_resolution_binning=False,
                clean_caption=False,
                output_type="np",
            ).images
        return list((images * 255).round().astype(np.uint8))


class StudentSampler:
    """Draws the sample prompts with a student in as many steps as it learns to take.

    Args:
        painter: Paints.
        num_steps: The student's steps.
    """

    def __init__(self, painter: CaptionPainter, num_steps: int) -> None:
        self._painter, self._num_steps = painter, num_steps

    def __call__(self, method: Method, path: Path) -> Mapping[str, float]:
        """Write a grid of the sample prompts."""
        student: Any = method.roles["student"]
        images = self._painter.paint(student, SAMPLE_PROMPTS, num_steps=self._num_steps)
        save_grid(images, COLUMNS, path)
        return {}


def comparison(
    painter: CaptionPainter,
    rows: Sequence[tuple[PixArtTransformer2DModel, int, float]],
    path: Path,
    *,
    num_prompts: int = 8,
) -> Path:
    """Write the same prompts and seeds, a row per model.

    Args:
        painter: Paints.
        rows: Transformer, steps and guidance of each row.
        path: PNG file to write.
        num_prompts: How many of the sample prompts, from the first on.

    Returns:
        The file.
    """
    prompts = SAMPLE_PROMPTS[:num_prompts]
    images = [
        image
        for transformer, num_steps, guidance in rows
        for image in painter.paint(transformer, prompts, num_steps=num_steps, guidance=guidance)
    ]
    save_grid(images, len(prompts), path)
    return path
