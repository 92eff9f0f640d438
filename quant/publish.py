"""Put a low-bit transformer where it can be served or loaded by stock diffusers."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from core.errors import CheckpointError, InputError
from quant.pictures import painting_with


def publish_variant(
    checkpoint: Path, transformer: Path, name: str, entry: Mapping[str, object]
) -> Path:
    """Add a transformer to a checkpoint as one of its variants.

    The folder is written beside its place and then takes it; variants.json, which names it, is
    written last, so that a server never sees half.

    Args:
        checkpoint: A diffusers pipeline folder.
        transformer: Folder of the low-bit transformer.
        name: The variant's name; one of that name that has the same parent is replaced.
        entry: What variants.json says of it: steps, guidance, bits, parent, method, data, metrics.

    Returns:
        The variant's folder.

    Raises:
        CheckpointError: If the checkpoint is none.
        InputError: If the name is that of the parent, or no plain name.
    """
    if not (checkpoint / "model_index.json").is_file():
        raise CheckpointError(f"{checkpoint} has no model_index.json: give a pipeline folder.")
    if name == entry.get("parent") or not name.replace("-", "").isalnum():
        raise InputError(
            f"A variant cannot be called {name!r}: letters, digits and hyphens, and not its "
            "parent's name.",
            param="publish_as",
        )
    manifest = _variants(checkpoint)
    folder = checkpoint / f"transformer-{name}"
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(transformer, fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    shared = [
        f for part in ("text_encoder", "vae") for f in (checkpoint / part).glob("*.safetensors")
    ]
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json", *shared])
    manifest["variants"][name] = {
        "folder": folder.name,
        **entry,
        "sha256": {f.relative_to(checkpoint).as_posix(): _digest(f) for f in files},
    }
    draft = checkpoint / "variants.json.new"
    draft.write_text(json.dumps(manifest, indent=2) + "\n")
    draft.replace(checkpoint / "variants.json")
    return folder


def publish_pipeline(pipeline: Any, transformer: nn.Module, folder: Path) -> Path:  # noqa: ANN401
    """Write a whole diffusers folder whose only transformer is the low-bit one.

    Args:
        pipeline: The float pipeline, whose other parts are copied.
        transformer: The low-bit transformer.
        folder: Where to; it must not hold a pipeline yet.

    Returns:
        The folder.

    Raises:
        InputError: If there is a pipeline already.
    """
    if (folder / "model_index.json").exists():
        raise InputError(f"{folder} holds a pipeline already: give a new folder.", param="output")
    with painting_with(pipeline, transformer):
        pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _variants(checkpoint: Path) -> dict[str, Any]:
    file = checkpoint / "variants.json"
    if not file.is_file():
        return {"default": "default", "variants": {"default": {"folder": "transformer"}}}
    manifest = json.loads(file.read_text())
    if not isinstance(manifest, dict) or not isinstance(manifest.get("variants"), dict):
        raise CheckpointError(f"{file} has no table of variants: copy the checkpoint again.")
    return manifest


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
