"""Networks of our own on disk: safetensors beside a JSON with their shape and what was measured."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from diffusers import ModelMixin
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from core.errors import CheckpointError

Network = TypeVar("Network", bound=nn.Module)


def save_network(
    network: Any,  # noqa: ANN401 - a module with a dataclass as `shape`
    folder: Path,
    kind: str,
    *,
    metrics: Mapping[str, float],
) -> Path:
    """Write a network with its shape.

    Args:
        network: Trained; its attribute `shape` is a dataclass.
        folder: Made if missing.
        kind: What it is, which names both files.
        metrics: What was measured of it.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_model(network, str(folder / f"{kind}.safetensors"))
    record = {"shape": asdict(network.shape), "metrics": dict(metrics)}
    (folder / f"{kind}.json").write_text(json.dumps(record, indent=2) + "\n")
    return folder


def load_network(
    folder: Path, kind: str, make: Callable[..., Network], *, command: str, param: str
) -> Network:
    """Read what `save_network` wrote, frozen.

    Args:
        folder: Holds both files.
        kind: What it is.
        make: Makes an untrained network from the fields of its shape.
        command: What trains one, for the message.
        param: The option that named the folder.

    Raises:
        CheckpointError: If the folder holds no such network.
    """
    files = [folder / f"{kind}.{ending}" for ending in ("json", "safetensors")]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} holds no {kind}: {' and '.join(missing)} not found. Name a folder that "
            f"has both, or train one: {command}",
            param=param,
        )
    try:
        shape = json.loads(files[0].read_text())["shape"]
        network = make(**{k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()})
        load_model(network, files[1])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"The {kind} in {folder} cannot be read, {files[0].name} or {files[1].name} is damaged "
            f"({type(error).__name__}: {error}). Copy both again, or train one: {command}",
            param=param,
        ) from error
    return network.eval().requires_grad_(requires_grad=False)


def weights_digest(network: nn.Module) -> str:
    """Return a short name of a network's weights.

    Args:
        network: Any.
    """
    digest = hashlib.sha256()
    for name, weight in network.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_like(model: ModelMixin, folder: Path, *, param: str) -> ModelMixin:
    """Load a diffusers network that must have the class and the shape of another.

    Args:
        model: Whose class and shape it must have.
        folder: A diffusers folder of safetensors.
        param: Which option it was given by.

    Raises:
        CheckpointError: If it cannot be read, lacks weights, has others, or holds a NaN.
    """
    try:
        network, told = type(model).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} cannot be loaded as a {type(model).__name__} ({error}).", param=param
        ) from error
    if lacking := sorted(told["missing_keys"]):
        raise CheckpointError(f"{folder} lacks the weight {lacking[0]}.", param=param)
    found = network.state_dict()
    shapes = [{name: w.shape for name, w in each.items()} for each in (found, model.state_dict())]
    if shapes[0] != shapes[1]:
        raise CheckpointError(
            f"{folder} has other weights than the {type(model).__name__} that it is to be like.",
            param=param,
        )
    if broken := [name for name, weight in found.items() if not weight.isfinite().all()]:
        raise CheckpointError(f"{folder}: {broken[0]} is not finite.", param=param)
    return network
