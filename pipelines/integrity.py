"""Are the files of a checkpoint whole, unchanged and safe to read? Nothing here loads a weight."""

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from core.errors import CheckpointError

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I8": 8, "U8": 8}


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds a pickle anywhere: reading one can run any code.

    Args:
        folder: The checkpoint.

    Raises:
        CheckpointError: If there is one, even beside good safetensors.
    """
    found = sorted(f for f in folder.rglob("*") if f.suffix.lower() in PICKLE_SUFFIXES)
    if found:
        raise CheckpointError(
            f"{found[0]} may be a pickle, which can run code when it is read. Remove it, after "
            "converting what it holds to safetensors: pipe.save_pretrained(folder, "
            "safe_serialization=True)."
        )


def read_json(file: Path) -> dict[str, object]:
    """Read a JSON object.

    Args:
        file: Where it stands.

    Returns:
        The object.

    Raises:
        CheckpointError: If the file is missing, is not JSON, or holds something else.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: copy or download the checkpoint again.")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(
            f"{file} is not JSON ({error}): copy or download the checkpoint again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not an object.")
    return content


def weight_files(folder: Path, stem: str) -> list[Path]:
    """List the safetensors files that one component is loaded from.

    Args:
        folder: The component's folder.
        stem: File name without ending: "model" or "diffusion_pytorch_model".

    Returns:
        One file, or the shards that `<stem>.safetensors.index.json` names.

    Raises:
        CheckpointError: If there is none, or a shard is missing.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if not index.is_file():
        files = [folder / f"{stem}.safetensors"]
    else:
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{index} has no weight_map: download the checkpoint again.")
        files = sorted({folder / Path(str(name)).name for name in shards.values()})
    for file in files:
        if not file.is_file():
            beside = ", ".join(sorted(f.name for f in folder.glob("*"))) or "nothing"
            raise CheckpointError(
                f"{file} is missing (the folder holds {beside}): copy or download the checkpoint "
                "again, or save it with safe_serialization=True and no weight variant."
            )
    return files


def measure_weights(files: list[Path]) -> tuple[int, int]:
    """Read the headers of safetensors files, which must agree with the bytes that follow.

    Args:
        files: Files of one component.

    Returns:
        Number of parameters, and the bits that most of them are stored in.

    Raises:
        CheckpointError: If a header is broken or the file is shorter or longer than it says.
    """
    numbers: dict[str, int] = {}
    for file in files:
        try:
            with safe_open(file, framework="np") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    tensor = weights.get_slice(name)
                    kind = tensor.get_dtype()
                    numbers[kind] = numbers.get(kind, 0) + prod(tensor.get_shape())
        except SafetensorError as error:
            raise CheckpointError(
                f"{file} is truncated or corrupt ({error}): copy or download it again."
            ) from error
    if not numbers:
        raise CheckpointError(f"{files[0]} holds no tensor: copy or download it again.")
    return sum(numbers.values()), _BITS.get(max(numbers, key=numbers.__getitem__), 32)


def packed_tensor(files: list[Path]) -> str | None:
    """Return the name of a packed low-bit tensor in safetensors files, if they hold any.

    Args:
        files: Files of one component, whose headers are sound.
    """
    for file in files:
        with safe_open(file, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                if name.endswith(".codes") and weights.get_slice(name).get_dtype() == "U8":
                    return str(name)
    return None


def digest(file: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify_digests(root: Path, expected: Mapping[str, object]) -> None:
    """Compare files with the sha256 that the checkpoint states for them.

    Args:
        root: The checkpoint, which the paths are relative to.
        expected: sha256 in hex by POSIX path.

    Raises:
        CheckpointError: If a file is missing, outside of the checkpoint, or has changed.
    """
    for name, stated in expected.items():
        file = inside(root, name)
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, though variants.json states its sha256.")
        found = digest(file)
        if found != stated:
            raise CheckpointError(
                f"{file} has sha256 {found}, but variants.json states {stated}: the file was "
                "damaged or replaced. Copy or download the checkpoint again."
            )


def inside(root: Path, name: str) -> Path:
    """Join a path from a manifest to the checkpoint, which it must not leave.

    Args:
        root: The checkpoint.
        name: Relative POSIX path.

    Returns:
        The joined path; it need not exist.

    Raises:
        CheckpointError: If the path is absolute or climbs out.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise CheckpointError(
            f"{root / 'variants.json'} names {name!r}: give a path inside the checkpoint."
        )
    return root / path


def content_hash(root: Path, files: list[Path]) -> str:
    """Name a set of files by what they hold.

    Args:
        root: The checkpoint, which the hashed names are relative to.
        files: Files inside of it.

    Returns:
        Twelve hex digits that change with any byte or name.
    """
    lines = sorted(f"{file.relative_to(root).as_posix()} {digest(file)}" for file in set(files))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
