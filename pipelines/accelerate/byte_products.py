"""Packed layers as torch compiles them: bytes times bytes, what lies around them fused.

The same as `PackedLinear` computes, but for the order of sums: codes are expanded to bytes once,
when the model is loaded, and torch's compiler joins rounding and scales with what comes before and
after.
"""

from typing import no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.devices import has_byte_units
from pipelines.accelerate.packed_graphs import Clock, PlainLinear, plain_layer
from quant.constants import IntegerWeights, integer_weights
from quant.integers import input_offset, signed_inputs
from quant.layers import PackedLayer, PackedLinear
from quant.precision import MAX_BITS

FEWEST_ROWS = 17
"""Rows that CUDA's product of bytes needs at least; fewer are filled up."""

WIDTH_STEP = 8
"""What its widths must be whole multiples of."""


def byte_layer(layer: PackedLayer, clock: Clock) -> tuple[nn.Module, IntegerWeights | None]:
    """Return what a packed layer computes, in operations that torch compiles well.

    Args:
        layer: The packed layer.
        clock: Tells its input ranges.

    Returns:
        The module, and no codes: it holds them itself. Where inputs stay in float, rows have
        several scales, or no kernel is fast, weights are expanded to floats.
    """
    if isinstance(layer, PackedLinear) and layer.form.activation_bits and _has_kernel(layer):
        codes = integer_weights(layer, signed_bits=MAX_BITS)
        if codes is not None:
            return _ByteProduct(layer, codes, clock), None
    return plain_layer(layer, clock, code_bits=None)[0], None


def _has_kernel(layer: PackedLinear) -> bool:
    kind = layer.codes.device.type
    is_fast = has_byte_units() if kind == "cpu" else kind == "cuda"
    return is_fast and layer.in_features % WIDTH_STEP == 0 and layer.out_features % WIDTH_STEP == 0


class _ByteProduct(PlainLinear):
    """Sum codes in int32, then take zero points out: sum (a - za) b s = s (sum a b - za sum b)."""

    def __init__(self, layer: PackedLinear, codes: IntegerWeights, clock: Clock) -> None:
        super().__init__(layer, codes.codes, clock)
        self._bits = layer.form.activation_bits
        scale = codes.scale[:, 0]
        # All layers have a rest, if of zeros: one compiled block serves those that are alike.
        rest = torch.zeros_like(scale) if codes.rest is None else codes.rest
        self._code_sums = codes.codes.sum(-1, dtype=torch.float32) * scale
        self._channel_scale, self._channel_rest = scale, rest

    @no_type_check  # torch's compiler does not see through what checks shapes in tests
    def product(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        flat = x.float().flatten(0, -2)
        scale, zero = self.input_grid(flat)
        codes = signed_inputs(flat, scale, zero, self._bits)
        zero = zero - input_offset(self._bits)
        num_rows = len(codes)
        rows = F.pad(codes, (0, 0, 0, max(FEWEST_ROWS - num_rows, 0)))
        sums = torch._int_mm(rows, self.weight.T)[:num_rows]  # noqa: SLF001
        product = sums * self._channel_scale - zero * self._code_sums
        input_sums = codes.sum(-1, keepdim=True) - x.shape[-1] * zero
        output = (product + input_sums * self._channel_rest) * scale
        return output.view(*x.shape[:-1], -1).to(x.dtype)
