"""Codes of inputs as int8, for integer products."""

from typing import no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quant.precision import MAX_BITS

INT8_OFFSET = 128


def per_row(part: Tensor, x: Tensor) -> Float[Tensor, "m 1"]:
    """Return one value for each row of the flattened inputs, or a single one for all.

    Args:
        part: Scales or zero points, broadcast against the inputs.
        x: The inputs.
    """
    if part.numel() == 1:
        return part.reshape(1, 1)
    return part.expand(*x.shape[:-1], 1).reshape(-1, 1)


@no_type_check  # torch's compiler does not see through what checks shapes in tests
def signed_inputs(
    x: Float[Tensor, "m i"], scale: Tensor, zero: Tensor, bits: int
) -> Int[Tensor, "m i"]:
    """Return the codes of inputs, shifted into int8; few passes over memory, most in place.

    Args:
        x: Inputs, one row each.
        scale: Their scale.
        zero: Their zero point.
        bits: Their width.
    """
    offset = input_offset(bits)
    codes = torch.addcmul(zero - offset, x.float(), scale.reciprocal())
    return codes.round_().clamp_(-offset, 2**bits - 1 - offset).to(torch.int8)


@no_type_check
def input_offset(bits: int) -> int:
    """Return what codes are lowered by to fit int8.

    Args:
        bits: Their width.
    """
    return INT8_OFFSET if bits == MAX_BITS else 0
