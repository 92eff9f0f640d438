"""Which tensors a low-bit layer consists of, in memory and in its file."""

from collections.abc import Sequence

import torch

from quant.manifest import LayerFormat
from quant.packing import packed_bytes


def tensor_shapes(
    shape: Sequence[int], form: LayerFormat
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and dtype of every stored tensor of a layer, the bias aside.

    Args:
        shape: Shape of the float weight.
        form: How it is stored.
    """
    rows, width = shape[0], num_inputs(shape)
    groups = -(-width // form.group_size) if form.group_size else 1
    num_bytes = sum(packed_bytes(n * width, bits) for bits, n in form.widths.items())
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "codes": ((num_bytes,), torch.uint8),
        "scale": ((rows, groups), torch.bfloat16),
        "zero": ((rows, groups), torch.uint8),
    }
    if len(form.widths) > 1:
        tensors["widths"] = ((packed_bytes(rows, 2),), torch.uint8)
    if form.smoothed:
        tensors["smoothing"] = ((shape[1],), torch.uint8)
    if form.num_ranges:
        tensors["ranges"] = ((2, form.num_ranges), torch.bfloat16)
    if form.rank:
        tensors["down"] = ((form.rank, width), torch.bfloat16)
        tensors["up"] = ((rows, form.rank), torch.bfloat16)
    return tensors


def num_inputs(shape: Sequence[int]) -> int:
    """Return how many weights an output channel has.

    Args:
        shape: Shape of the float weight.
    """
    return int(torch.Size(shape[1:]).numel())
