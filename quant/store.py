"""Low-bit transformers in files: which layers are packed, and whether a file holds what it says.

A folder is diffusers' own: config.json with a `quantization_config`, and one or more safetensors.
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.errors import CheckpointError, InputError
from quant.formats import num_inputs, tensor_shapes
from quant.layers import PackedConv2d, PackedLayer, PackedLinear
from quant.manifest import LayerFormat, Manifest
from quant.timesteps import Timesteps, watch_timestep

_DTYPES = {torch.uint8: "U8", torch.bfloat16: "BF16"}
_AGAIN = "Copy or download the checkpoint again."


def pack_in_place(transformer: nn.Module, manifest: Manifest, where: str) -> None:
    """Put empty packed layers where a manifest says, and let them know each pass's timestep.

    Args:
        transformer: A float network, or its weightless skeleton.
        manifest: Which layers, and how each is stored.
        where: The file that the manifest stands in, for messages.

    Raises:
        CheckpointError: If the network has no such layer, or one of another size.
    """
    timesteps = Timesteps(manifest.timesteps)
    for name, form in manifest.layers.items():
        at = f"{where}: quantization_config.layers[{name!r}]"
        try:
            source = transformer.get_submodule(name)
        except AttributeError as error:
            raise CheckpointError(
                f"{at} names no layer of {type(transformer).__name__}."
            ) from error
        if not isinstance(source, nn.Linear | nn.Conv2d):
            raise CheckpointError(f"{at} is a {type(source).__name__}: linear or conv is packed.")
        num_channels = sum(form.widths.values())
        if num_channels != len(source.weight):
            raise CheckpointError(
                f"{at}.widths counts {num_channels} output channels, the layer has "
                f"{len(source.weight)}. {_AGAIN}"
            )
        if form.rank > (width := num_inputs(source.weight.shape)):
            raise CheckpointError(
                f"{at}.rank is {form.rank}, the layer has {width} inputs. {_AGAIN}"
            )
        transformer.set_submodule(name, packed_layer(source, form, timesteps))
    watch_timestep(transformer, timesteps.set)


def packed_layer(
    source: nn.Linear | nn.Conv2d, form: LayerFormat, timesteps: Timesteps
) -> PackedLayer:
    """Return an empty packed layer of a float layer's shape, on the CPU.

    Args:
        source: The float layer; its weight may be on the meta device.
        form: How it is stored.
        timesteps: Where the running pass is.
    """
    if isinstance(source, nn.Conv2d):
        return PackedConv2d(source.weight.shape, form, timesteps, source=source)
    return PackedLinear(source.weight.shape, form, timesteps, has_bias=source.bias is not None)


def packed_layers(transformer: nn.Module) -> dict[str, PackedLayer]:
    """Return the packed layers of a network by name.

    Args:
        transformer: The network.
    """
    return {n: m for n, m in transformer.named_modules() if isinstance(m, PackedLayer)}


Header = tuple[Path, tuple[int, ...], str]
"""File, shape and dtype of a tensor."""


def read_headers(files: Sequence[Path]) -> dict[str, Header]:
    """Return what safetensors headers say of every tensor, by name.

    Args:
        files: The shards.

    Raises:
        CheckpointError: If a file is broken, or no safetensors file.
    """
    found: dict[str, Header] = {}
    for file in files:
        if file.suffix != ".safetensors":
            raise CheckpointError(f"{file} is no safetensors file, and nothing else is read.")
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    part = weights.get_slice(name)
                    found[name] = (file, tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is truncated or corrupt ({error}). {_AGAIN}") from error
    return found


def check_names(files: Sequence[Path], found: Iterable[str], transformer: nn.Module) -> None:
    """Compare the names of stored tensors with those of the network, float ones included.

    Args:
        files: The shards, for messages.
        found: Names of what they hold.
        transformer: With packed layers in their places.

    Raises:
        CheckpointError: If one is missing, or belongs to nothing.
    """
    here, wanted = set(found), set(transformer.state_dict())
    where, config = ", ".join(map(str, files)), files[0].parent / "config.json"
    if lacking := sorted(wanted - here):
        raise CheckpointError(
            f"{where} lacks the tensor {lacking[0]}, which {config} asks for. {_AGAIN}"
        )
    if odd := sorted(here - wanted):
        raise CheckpointError(
            f"{where} holds the tensor {odd[0]}, which belongs to no layer of {config} "
            f"(quantization_config.layers). {_AGAIN}"
        )


def check_size(transformer: nn.Module, manifest: Manifest, where: str) -> None:
    """Compare the size of a float network with what the manifest says of it.

    Args:
        transformer: Before its layers are packed; weightless is enough.
        manifest: What the folder says.
        where: The file that the manifest stands in, for messages.

    Raises:
        CheckpointError: If the manifest counts other parameters.
    """
    found = sum(weight.numel() for weight in transformer.parameters())
    if found != manifest.num_parameters:
        raise CheckpointError(
            f"{where}: quantization_config.num_parameters is {manifest.num_parameters}, but the "
            f"{type(transformer).__name__} that {where} describes has {found}. {_AGAIN}"
        )


def check_headers(
    found: Mapping[str, Header], layers: Mapping[str, PackedLayer], where: str
) -> None:
    """Compare what safetensors headers say with what the manifest needs, before a byte is read.

    Args:
        found: What `read_headers` returned.
        layers: Packed layers by name.
        where: The file that the manifest stands in, for messages.

    Raises:
        CheckpointError: If a tensor is missing or of another shape or dtype.
    """
    for name, layer in layers.items():
        for part, (shape, kind) in tensor_shapes(layer.shape, layer.form).items():
            tensor = f"{name}.{part}"
            if tensor not in found:
                raise CheckpointError(
                    f"{Path(where).parent} lacks the tensor {tensor} that {where} asks for "
                    f"(quantization_config.layers[{name!r}]). {_AGAIN}"
                )
            file, stored, stored_kind = found[tensor]
            if (stored, stored_kind) != (shape, _DTYPES[kind]):
                raise CheckpointError(
                    f"{file}: {tensor} is {stored_kind} {list(stored)}, but {where} "
                    f"(quantization_config.layers[{name!r}], widths "
                    f"{dict(layer.form.widths)}) asks for {_DTYPES[kind]} {list(shape)}. {_AGAIN}"
                )


def float_tensors(transformer: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network that stay in float, biases of packed layers included.

    Args:
        transformer: With packed layers.
    """
    layers = packed_layers(transformer)
    return {
        name: tensor
        for name, tensor in transformer.state_dict().items()
        if not is_stored_part(layers, name)
    }


def float_checksum(stated: Mapping[str, object], tensors: Mapping[str, Tensor]) -> int:
    """Return the CRC-32 of what a manifest says and of tensors, in whatever order they come.

    Args:
        stated: What `Manifest.stated` returned.
        tensors: Those that stay in float, by name, on any device.
    """
    crc = zlib.crc32(json.dumps(stated, sort_keys=True).encode())
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        crc = zlib.crc32(flat.numpy().tobytes(), zlib.crc32(name.encode(), crc))
    return crc


def verify_floats(
    found: Mapping[str, Header], layers: Mapping[str, PackedLayer], manifest: Manifest, where: str
) -> None:
    """Compare what is said of the whole network, and what stays in float, with the checksum.

    Args:
        found: What `read_headers` returned.
        layers: Packed layers by name.
        manifest: What the folder says.
        where: The file that the manifest stands in, for messages.

    Raises:
        CheckpointError: If something is not as it was written.
    """
    tensors: dict[str, Tensor] = {}
    files = sorted({file for file, _, _ in found.values()})
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                if not is_stored_part(layers, name):
                    tensors[name] = weights.get_tensor(name)
    checksum = float_checksum(manifest.stated(), tensors)
    if checksum != manifest.checksum:
        raise CheckpointError(
            f"{where}: quantization_config.checksum is {manifest.checksum:08x}, but "
            f"{', '.join(manifest.stated())} and the tensors that stay in float (biases, norms) "
            f"in {', '.join(map(str, files))} have {checksum:08x}: one of them was changed or "
            f"belongs to another checkpoint. {_AGAIN}"
        )


def verify_layers(layers: Mapping[str, PackedLayer], where: str) -> None:
    """Compare loaded tensors with their checksums, and make the layers ready to run.

    Args:
        layers: Packed layers by name.
        where: The file that the manifest stands in, for messages.

    Raises:
        CheckpointError: If a layer's tensors are not those that the manifest was written for.
    """
    for name, layer in layers.items():
        found = layer.checksum()
        if found != layer.form.checksum:
            raise CheckpointError(
                f"{where}: quantization_config.layers[{name!r}].checksum is "
                f"{layer.form.checksum:08x}, but {', '.join(layer.form.stated())} and the tensors "
                f"of layer {name!r} have {found:08x}: they were damaged or belong to another "
                f"checkpoint. {_AGAIN}"
            )
        try:
            layer.restore_places()
        except InputError as error:
            raise CheckpointError(
                f"{where}: quantization_config.layers[{name!r}].widths is "
                f"{dict(layer.form.widths)}, but {error.message}. {_AGAIN}"
            ) from error


def storage(transformer: nn.Module) -> dict[str, int]:
    """Return what the low-bit weights of a network take.

    Args:
        transformer: A network with packed layers.

    Returns:
        num_weights: Weights that are packed.
        code_bits: The sum of their bits.
        resident_bytes: Bytes that their layers hold in memory, biases aside.
        stored_bytes: Bytes of their tensors in files, biases and headers aside.
    """
    layers = packed_layers(transformer).values()
    sizes = [tensor_shapes(layer.shape, layer.form) for layer in layers]
    return {
        "num_weights": sum(int(torch.Size(layer.shape).numel()) for layer in layers),
        "code_bits": sum(layer.code_bits for layer in layers),
        "resident_bytes": sum(layer.num_bytes for layer in layers),
        "stored_bytes": sum(
            torch.Size(shape).numel() * kind.itemsize
            for tensors in sizes
            for shape, kind in tensors.values()
        ),
    }


def is_stored_part(layers: Mapping[str, PackedLayer], tensor: str) -> bool:
    """Return whether a tensor is one of a packed layer's own, its bias aside.

    Args:
        layers: Packed layers by name.
        tensor: Name of the tensor in the network.
    """
    owner, _, part = tensor.rpartition(".")
    return owner in layers and part in tensor_shapes(layers[owner].shape, layers[owner].form)


def set_tensor(transformer: nn.Module, name: str, value: Tensor, device: Any) -> None:  # noqa: ANN401
    """Give a packed layer a tensor in the dtype of the file.

    Args:
        transformer: The network.
        name: The tensor's name in it.
        value: The tensor.
        device: Where it goes.
    """
    owner, _, part = name.rpartition(".")
    transformer.get_submodule(owner).register_buffer(part, value.to(device))
