"""A tiny random PixArt in diffusers' own folder format, in every flavour that is served."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from pipelines.text_to_image import TextToImage

WORDS = "a red blue green apple cat dog left right of the above below two watercolor pixel art , ."
MAX_TOKENS = 24


def pytest_configure(config: pytest.Config) -> None:
    # diffusers' solver makes a numpy array of a tensor, which has no `copy` keyword yet.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a tiny random checkpoint; keyword arguments change its flavour."""

    def make(*, sigma: bool = False, deep_vae: bool = False, **transformer: Any) -> Path:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
        kind = PixArtSigmaPipeline if sigma else PixArtAlphaPipeline
        tokenizer = _tokenizer()
        parts = {
            "tokenizer": tokenizer,
            "text_encoder": _text_encoder(len(tokenizer)),
            "vae": _kl_vae(),
            "transformer": _transformer(**transformer),
            "scheduler": _scheduler(),
        }
        kind(**parts).save_pretrained(folder, safe_serialization=True)
        if deep_vae:
            _swap_vae(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def folder(make_folder: Callable[..., Path]) -> Path:
    """The flavour of the shipped checkpoint; never change it, copy it."""
    return make_folder()


@pytest.fixture(scope="session")
def model(folder: Path) -> TextToImage:
    return TextToImage.load(folder, device="cpu")


def _tokenizer() -> PreTrainedTokenizerFast:
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = {word: number for number, word in enumerate([*marks.values(), *WORDS.split()])}
    words = Tokenizer(WordLevel(vocabulary, marks["unk_token"]))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=MAX_TOKENS, **marks)


def _text_encoder(num_words: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=num_words,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def _transformer(**changes: Any) -> PixArtTransformer2DModel:
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 8,
        "out_channels": 8,
        "num_layers": 2,
        "cross_attention_dim": 32,
        "caption_channels": 32,
        "sample_size": 16,
        "patch_size": 2,
    }
    network = PixArtTransformer2DModel(**(config | changes)).eval()
    # Fresh weights scarcely hear their words; a louder input makes every mistake visible.
    network.caption_projection.linear_2.weight.data *= 10
    return network


def _kl_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        latent_channels=8,
        scaling_factor=0.7,
    ).eval()


def _swap_vae(folder: Path) -> None:
    for file in (folder / "vae").iterdir():
        file.unlink()
    vae = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.5,
    )
    vae.save_pretrained(folder / "vae", safe_serialization=True)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["vae"] = ["diffusers", "AutoencoderDC"]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )
