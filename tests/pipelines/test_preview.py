"""Previews by a small decoder: what it decides, and what it does not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from core.errors import CheckpointError
from pipelines.preview import FOLDER
from pipelines.rows import RowPainter
from pipelines.spec import GenerationSpec
from pipelines.store import open_checkpoint
from pipelines.text_to_image import TextToImage

SPEC = GenerationSpec(prompt="a red apple", seed=3, num_steps=3, guidance_scale=1.0)


def small(**changes: object) -> AutoencoderTiny:
    torch.manual_seed(1)
    config = {
        "encoder_block_out_channels": (8,) * 4,
        "decoder_block_out_channels": (8,) * 4,
        "num_encoder_blocks": (1,) * 4,
        "num_decoder_blocks": (1,) * 4,
        "latent_channels": 8,
        "scaling_factor": 0.5,
    }
    return AutoencoderTiny(**(config | changes)).eval()


@pytest.fixture
def with_small(folder: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(folder, tmp_path / "small"))
    small().save_pretrained(copied / FOLDER)
    return copied


def test_previews_are_decoded_by_the_small_decoder_and_pictures_by_the_vae(
    with_small: Path, folder: Path
) -> None:
    ours, plain = TextToImage.load(with_small, device="cpu"), TextToImage.load(folder, device="cpu")
    assert ours.info.revision == plain.info.revision
    spec = replace(SPEC, num_steps=2)
    assert ours.generate([spec])[0].image == plain.generate([spec])[0].image
    painter = RowPainter(ours)
    row = painter.begin(spec)
    painter.apply(row, painter.predict([row])[0])
    expected = row.scheduler.model_outputs[-1]
    with torch.inference_mode():
        pixels = small().decode(expected / 0.5).sample[0].clamp(-1, 1)
    levels = ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(painter.preview(row)).astype(int) - levels.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda: small(latent_channels=4), "latent_channels, the VAE 8"),
        (
            lambda: small(
                encoder_block_out_channels=(8,) * 3,
                decoder_block_out_channels=(8,) * 3,
                num_encoder_blocks=(1,) * 3,
                num_decoder_blocks=(1,) * 3,
            ),
            "4 as latent factor, the VAE 8",
        ),
        (lambda: AutoencoderKL(norm_num_groups=4, block_out_channels=(8,)), "decoded by Autoenc"),
    ],
    ids=["channels", "factor", "class"],
)
def test_a_small_decoder_of_another_model_is_refused_before_loading(
    folder: Path, tmp_path: Path, network: Callable[[], AutoencoderTiny], words: str
) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "wrong"))
    network().save_pretrained(copied / FOLDER)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(copied)


def test_a_small_decoder_without_weights_is_refused_with_the_way_out(with_small: Path) -> None:
    (with_small / FOLDER / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="preview_vae"):
        open_checkpoint(with_small)
    (with_small / FOLDER / "config.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="is of class None"):
        open_checkpoint(with_small)
