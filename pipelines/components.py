"""From the files of a checkpoint to its networks in memory."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging as transformers_logging

import quant.loader  # noqa: F401 - teaches diffusers to load low-bit folders
from core.devices import multiplies_bfloat16, usable_device
from core.errors import CheckpointError, UnknownNameError
from pipelines.store import Checkpoint

log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Components:
    """The networks of one model, on one device, ready to run.

    Attributes:
        tokenizer: Splits a prompt into tokens.
        text_encoder: Turns tokens into vectors.
        transformer: Denoises a latent picture, step by step.
        vae: Turns a latent picture into pixels.
        preview: Does so for previews, with less care and in less time; None where the VAE does.
        device: Where the networks are.
        dtype: What their weights are kept and computed in.
    """

    tokenizer: PreTrainedTokenizerBase
    text_encoder: T5EncoderModel
    transformer: PixArtTransformer2DModel
    vae: AutoencoderKL | AutoencoderDC
    device: torch.device
    dtype: torch.dtype
    preview: AutoencoderTiny | None = None


def load_components(
    checkpoint: Checkpoint, *, device: str | None = None, dtype: str | None = None
) -> Components:
    """Load the networks of a checked checkpoint: safetensors only, and none of its code.

    Args:
        checkpoint: What `open_checkpoint` returned.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the fastest that is there.
        dtype: "float32" or "bfloat16"; None takes bfloat16 on CUDA and float32 elsewhere.

    Returns:
        The networks in evaluation mode. A ConfigError says that there is no such device, an
        UnknownNameError that there is no such dtype, a CheckpointError that the files lack weights
        that their configuration asks for.
    """
    place = usable_device(device)
    kind = _dtype(dtype, place)
    vae_class = AutoencoderDC if checkpoint.vae_class == "AutoencoderDC" else AutoencoderKL
    root = checkpoint.root
    with _quiet_loading():
        parts: dict[str, Any] = {
            "text_encoder": _load(T5EncoderModel, str(root / "text_encoder"), dtype=kind),
            "transformer": _load(
                PixArtTransformer2DModel, str(checkpoint.transformer), torch_dtype=kind
            ),
            "vae": _load(vae_class, str(root / "vae"), torch_dtype=kind),
        }
        if checkpoint.preview is not None:
            parts["preview"] = _load(AutoencoderTiny, str(checkpoint.preview), torch_dtype=kind)
    return Components(
        tokenizer=_load_tokenizer(str(root / "tokenizer")),
        **{name: part.to(place).eval() for name, part in parts.items()},
        device=place,
        dtype=kind,
    )


def _load(kind: Any, folder: str, **dtype: torch.dtype) -> Any:  # noqa: ANN401 - two libraries' classes
    try:
        part, found = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **dtype
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} cannot be loaded as {kind.__name__}: {error}. Save the checkpoint again "
            "with pipe.save_pretrained."
        ) from error
    # Both libraries draw what they miss at random and go on.
    wrong = sorted(str(name) for key in ("missing_keys", "mismatched_keys") for name in found[key])
    if wrong:
        raise CheckpointError(
            f"{folder} lacks {len(wrong)} weights of {kind.__name__} that its config.json asks "
            f"for, {wrong[0]} among them: copy or download the checkpoint again."
        )
    return part


def _load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder} holds no tokenizer that can be loaded: {error}. Copy or download the "
            "checkpoint again."
        ) from error
    if not tokenizer("")["input_ids"]:
        raise CheckpointError(
            f"{folder} gives no token for the empty text, and guidance needs one: add an end mark "
            "to the tokenizer's post-processor."
        )
    return tokenizer


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise UnknownNameError("dtype", name, _DTYPES, param="dtype")
    if name == "bfloat16" and not multiplies_bfloat16(device):
        log.warning("This %s has no bfloat16 arithmetic: dtype float32 is faster.", device)
    return _DTYPES[name]


@contextmanager
def _quiet_loading() -> Iterator[None]:
    # Folders may carry fields for other classes (block_out_channels beside an AutoencoderDC, which
    # stock pipelines read): diffusers keeps them, but says on every start that it ignores them.
    configuration = logging.getLogger("diffusers.configuration_utils")
    level = configuration.level
    configuration.setLevel(logging.ERROR)
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        configuration.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()
