"""diffusers' own pipeline around a checkpoint's float networks, as its documentation loads it.

Nothing of Fewstroke is imported here: peers run it in an environment of their own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, PixArtTransformer2DModel


def load_stock(
    model: str, transformer: str, order: int, dtype: torch.dtype, device: str = "cpu"
) -> Any:  # noqa: ANN401
    """Load a pipeline.

    Args:
        model: Checkpoint folder.
        transformer: Folder of the float transformer in it.
        order: Order of the solver; 1 is DDIM.
        dtype: What it computes in.
        device: Where it computes.

    Returns:
        The pipeline, silent.
    """
    network = PixArtTransformer2DModel.from_pretrained(transformer)
    pipe = DiffusionPipeline.from_pretrained(model, transformer=network)
    if dtype != torch.float32:
        pipe.to(dtype)
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, solver_order=order, final_sigmas_type="zero"
    )
    return pipe


def paint_stock(pipe: Any, asked: Mapping[str, Any]) -> np.ndarray[Any, Any]:  # noqa: ANN401
    """Paint one picture.

    Args:
        pipe: A pipeline.
        asked: prompt, seed, num_steps, guidance_scale, width and height.

    Returns:
        Its pixels, 0..255.
    """
    picture = pipe(
        asked["prompt"],
        num_inference_steps=asked["num_steps"],
        guidance_scale=asked["guidance_scale"],
        width=asked["width"],
        height=asked["height"],
        generator=torch.Generator().manual_seed(asked["seed"]),
        use_resolution_binning=False,
        clean_caption=False,
    ).images[0]
    return np.asarray(picture)
