"""Write a trained base model as a checkpoint that can be served."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from diffusers import AutoencoderDC, DDIMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from safetensors.torch import load_model
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from core.errors import CheckpointError


def publish_teacher(
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerFast,
    text_encoder: T5EncoderModel,
    autoencoder: AutoencoderDC,
    transformer: PixArtTransformer2DModel,
    scheduler: DDIMScheduler,
    origin: Mapping[str, object],
    num_steps: int = 20,
    guidance: float = 4.0,
) -> Path:
    """Write a diffusers pipeline folder with the teacher as its only variant.

    The folder is written beside its place and then takes it, so that a server never sees half.

    Args:
        folder: Where the checkpoint goes; one that is there is replaced.
        tokenizer: The words it knows.
        text_encoder: Trained with the transformer.
        autoencoder: Its scaling factor is set.
        transformer: The teacher.
        scheduler: The noise schedule it was trained with.
        origin: How it was made: "method", "data" and "metrics" (samples seen, hours).
        num_steps: Steps that suit it.
        guidance: Guidance scale that suits it.

    Returns:
        The folder.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline = PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=autoencoder,
        transformer=transformer,
        scheduler=scheduler,
    )
    pipeline.save_pretrained(fresh, safe_serialization=True)
    entry = {
        "folder": "transformer",
        "steps": num_steps,
        "guidance": guidance,
        "bits": 32,
        "parent": None,
        **origin,
        "sha256": {
            str(path.relative_to(fresh)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(fresh.rglob("*.safetensors"))
        },
    }
    manifest = {"default": "teacher", "variants": {"teacher": entry}}
    (fresh / "variants.json").write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh.rename(folder)
    return folder


def load_published(
    folder: Path, *, transformer: PixArtTransformer2DModel, text_encoder: T5EncoderModel
) -> None:
    """Give networks the weights of a published checkpoint.

    Args:
        folder: A checkpoint that `publish_teacher` wrote.
        transformer: Takes the teacher's weights.
        text_encoder: Takes the text encoder's.

    Raises:
        CheckpointError: If the folder is missing or its networks have another shape.
    """
    for module, file in (
        (transformer, folder / "transformer" / "diffusion_pytorch_model.safetensors"),
        (text_encoder, folder / "text_encoder" / "model.safetensors"),
    ):
        if not file.is_file():
            raise CheckpointError(f"{file} is missing: give a folder that this command published.")
        try:
            load_model(module, file)
        except RuntimeError as error:
            raise CheckpointError(
                f"{file} does not fit this recipe: {error}. Use the width and depth it was "
                "trained with."
            ) from error
