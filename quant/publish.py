"""Put a low-bit transformer where it can be served or loaded by stock diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from core.errors import InputError
from core.folders import make_folder, refuse_file
from quant.pictures import painting_with
from training.publish import state_own


def publish_pipeline(
    pipeline: Any,  # noqa: ANN401 - any diffusers pipeline
    transformer: nn.Module,
    folder: Path,
    entry: Mapping[str, object] | None = None,
) -> Path:
    """Write a whole diffusers folder whose only transformer is the low-bit one.

    Args:
        pipeline: The float pipeline, whose other parts are copied.
        transformer: The low-bit transformer.
        folder: Where to; it must not hold a pipeline yet.
        entry: What its variants.json says of how it paints; None writes none.

    Returns:
        The folder. One that holds a pipeline already is an InputError.
    """
    check_new_folder(folder)
    with painting_with(pipeline, transformer):
        pipeline.save_pretrained(folder, safe_serialization=True)
    if entry is not None:
        state_own(folder, "low-bit", entry)
    return folder


def check_new_folder(folder: Path) -> None:
    """Refuse a place that no pipeline can be written to.

    Args:
        folder: Where to.

    Raises:
        InputError: If it is a file, below one, holds anything already, or cannot be made.
    """
    refuse_file(folder, param="output")
    if (folder / "model_index.json").exists():
        raise InputError(f"{folder} holds a pipeline already: give a new folder.", param="output")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: give a new folder.", param="output")
    make_folder(folder, param="output")
