"""Write trained models as a checkpoint that can be served, or as one more variant of it."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers import AutoencoderDC, DDIMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from safetensors.torch import load_model
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from core.errors import CheckpointError, InputError

OWN_TRANSFORMER = "transformer"
"""Where stock diffusers looks for the transformer of a pipeline."""
PREVIEW = "preview_vae"
"""Where the server looks for what decodes previews; stock diffusers passes it by."""


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
    guidance_rescale: float = 0.7,
) -> Path:
    """Write a diffusers pipeline folder with the teacher as its only variant.

    The folder is written beside its place and then takes it, so that a server never sees half.

    Args:
        folder: Where the checkpoint goes; one that is there is replaced, all its variants with it.
        tokenizer: The words it knows.
        text_encoder: Trained with the transformer.
        autoencoder: Its scaling factor is set.
        transformer: The teacher.
        scheduler: The noise schedule it was trained with.
        origin: How it was made: "method", "data" and "metrics" (samples seen, hours).
        num_steps: Steps that suit it.
        guidance: Guidance scale that suits it.
        guidance_rescale: How far guided predictions go back to the spread without guidance, 0..1.

    Returns:
        The folder.
    """
    check_publishable(folder)
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
        "folder": OWN_TRANSFORMER,
        "steps": num_steps,
        "guidance": guidance,
        "guidance_rescale": guidance_rescale,
        "bits": 32,
        "parent": None,
        **origin,
        "sha256": _digests(fresh, [fresh]),
    }
    manifest = {"default": "teacher", "variants": {"teacher": entry}}
    (fresh / "variants.json").write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh.rename(folder)
    return folder


def check_publishable(folder: Path) -> None:
    """Refuse a place whose folder holds something else than a checkpoint, before it is replaced.

    Args:
        folder: Where a teacher is to be published.

    Raises:
        InputError: If there is one, or the place has no name of its own.
    """
    if not folder.name:
        raise InputError(f"{folder} cannot be replaced: name a folder in it.", param="publish")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "model_index.json").is_file():
        raise InputError(
            f"{folder} holds something else than a checkpoint, and publishing replaces all of it: "
            "name a new folder.",
            param="publish",
        )


def add_variant(
    checkpoint: Path,
    name: str,
    transformer: Path,
    entry: Mapping[str, object],
    *,
    is_default: bool = False,
) -> Path:
    """Put one more transformer beside the others of a checkpoint, under a name of its own.

    The weights are copied beside their place and then take it; the list of variants is replaced
    last and at once. A server that reads meanwhile sees the checkpoint before or after, never half.

    Args:
        checkpoint: A diffusers folder of a PixArt pipeline.
        name: What the variant is asked for by: letters, digits, "-", "_", ".". A variant of that
            name is replaced, unless it is the checkpoint's own transformer.
        transformer: A diffusers folder; shares text encoder and autoencoder with the others.
        entry: What variants.json says of it: "steps", "guidance", "scheduler", "bits", "parent",
            "method", "data", "metrics".
        is_default: Whether it is what a server paints with where nobody asks for a variant.

    Returns:
        The folder of the transformer. A folder that is no checkpoint is a CheckpointError, a name
        that no variant can have an InputError.
    """
    check_variant_name(checkpoint, name)
    manifest = _manifest(checkpoint)
    home = _take_place(transformer, checkpoint / f"{OWN_TRANSFORMER}-{name}")
    files = _digests(checkpoint, [home, checkpoint / "vae", checkpoint / "text_encoder"])
    manifest["variants"][name] = {"folder": home.name, **entry, "sha256": files}
    if is_default:
        manifest["default"] = name
    renewed = checkpoint / "variants.json.new"
    renewed.write_text(json.dumps(manifest, indent=2) + "\n")
    renewed.replace(checkpoint / "variants.json")
    return home


def state_own(checkpoint: Path, name: str, entry: Mapping[str, object]) -> None:
    """Write the variants.json of a folder with one transformer: how that one paints.

    Args:
        checkpoint: A diffusers folder.
        name: What the transformer is called.
        entry: As for `add_variant`.
    """
    own = {"folder": OWN_TRANSFORMER, **entry, "sha256": _digests(checkpoint, [checkpoint])}
    manifest = {"default": name, "variants": {name: own}}
    (checkpoint / "variants.json").write_text(json.dumps(manifest, indent=2) + "\n")


def add_preview(checkpoint: Path, preview: Path) -> Path:
    """Put the small autoencoder that decodes previews into a checkpoint.

    Args:
        checkpoint: A diffusers folder of a PixArt pipeline.
        preview: A diffusers folder of an AutoencoderTiny that speaks its latents; copied beside its
            place, which it then takes.

    Returns:
        Where it stands now. A folder that is no checkpoint is a CheckpointError.
    """
    refuse_no_checkpoint(checkpoint)
    return _take_place(preview, checkpoint / PREVIEW)


def check_variant_name(checkpoint: Path, name: str) -> None:
    """Refuse a name that no further variant of a checkpoint can have.

    Args:
        checkpoint: A diffusers folder. One that is none is a CheckpointError.
        name: Letters, digits, "-", "_", "."; not that of the checkpoint's own transformer.

    Raises:
        InputError: If the name cannot be a folder's, or is the checkpoint's own transformer's.
    """
    refuse_no_checkpoint(checkpoint)
    variants = _manifest(checkpoint)["variants"]
    own = {key for key, each in variants.items() if each["folder"] == OWN_TRANSFORMER}
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name) or name in own:
        raise InputError(
            f"{name!r:.80} cannot name a variant: use up to 64 letters, digits, '-', '_' and '.', "
            f"and not {', '.join(sorted(own))}.",
            param="name",
        )


def refuse_no_checkpoint(checkpoint: Path) -> None:
    """Refuse a folder that is no checkpoint.

    Args:
        checkpoint: Any folder.

    Raises:
        CheckpointError: If it has no model_index.json.
    """
    if not (checkpoint / "model_index.json").is_file():
        raise CheckpointError(f"{checkpoint} is no diffusers folder: it has no model_index.json.")


def _take_place(folder: Path, home: Path) -> Path:
    fresh = home.with_name(home.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder, fresh)
    shutil.rmtree(home, ignore_errors=True)
    return fresh.rename(home)


def _manifest(checkpoint: Path) -> dict[str, Any]:
    file = checkpoint / "variants.json"
    if not file.is_file():
        entry = {"folder": OWN_TRANSFORMER, "sha256": _digests(checkpoint, [checkpoint])}
        return {"default": "default", "variants": {"default": entry}}
    manifest = json.loads(file.read_text())
    if not isinstance(manifest, dict) or not isinstance(manifest.get("variants"), dict):
        raise CheckpointError(f"{file} has no table of variants: copy the checkpoint again.")
    return manifest


def _digests(checkpoint: Path, folders: Sequence[Path]) -> dict[str, str]:
    return {
        str(path.relative_to(checkpoint)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted([*folder.rglob("*.safetensors"), *folder.glob("config.json")])
    }


def published_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the words of a published checkpoint, which may be more than today's world has.

    Args:
        folder: A checkpoint that `publish_teacher` wrote.

    Raises:
        CheckpointError: If it holds none.
    """
    home = folder / "tokenizer"
    if not (home / "tokenizer.json").is_file():
        raise CheckpointError(f"{home} is missing: give a folder that this command published.")
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(home)
    return tokenizer


def load_published(
    folder: Path, *, transformer: PixArtTransformer2DModel, text_encoder: T5EncoderModel
) -> Mapping[str, float]:
    """Give networks the weights of a published checkpoint.

    Args:
        folder: A checkpoint that `publish_teacher` wrote.
        transformer: Takes the teacher's weights.
        text_encoder: Takes the text encoder's.

    Returns:
        What training those weights took, the teacher's "metrics" in variants.json: "samples_seen"
        and "train_hours".

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
    own = [v for v in _manifest(folder)["variants"].values() if v["folder"] == OWN_TRANSFORMER]
    metrics = own[0].get("metrics", {}) if own else {}
    return {key: float(value) for key, value in metrics.items()}
