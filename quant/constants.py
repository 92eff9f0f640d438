"""Packed layers as whole numbers for engines that keep them compressed: codes, zeros, scales."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from quant.layers import PackedLayer
from quant.precision import MAX_BITS

CONTAINERS = (2, 4, MAX_BITS)
"""Bits that engines keep codes in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IntegerWeights:
    """A weight matrix as an engine takes it: (codes - zero) * scale + rest, row by row.

    Attributes:
        bits: Bits that every code fits in: 2, 4 or 8.
        codes: One row per output channel, in the layer's own order.
        zero: Whole zero point of each row, in as many bits.
        scale: Distance of two levels of each row.
        rest: What a whole zero point leaves over, times the scale: added to every weight of its
            row, which is the sum of the inputs times it; None where it is 0 everywhere.
    """

    bits: int
    codes: UInt8[Tensor, "o i"]
    zero: UInt8[Tensor, "o 1"]
    scale: Float[Tensor, "o 1"]
    rest: Float[Tensor, " o"] | None

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """The float weight without its rest."""
        return (self.codes.float() - self.zero.float()) * self.scale


def integer_weights(layer: PackedLayer, *, expand: bool = False) -> IntegerWeights | None:
    """Return the smoothed weight of a packed layer in whole numbers, without any rounding.

    Zero points lie on fractions of a code. In eight bits, code and zero point are both multiplied
    by 2**(8 - bits), and the fraction is gone; in fewer, it is handed out as `rest`.

    Args:
        layer: The layer; its float branch and smoothing are not part of the result.
        expand: Take eight bits for every code.

    Returns:
        The weights; None for a layer whose rows have several scales.
    """
    if layer.scale.shape[1] > 1:
        return None
    codes, zero, scale = layer.sorted_codes(), layer.sorted_zero(), layer.scale.float()
    widths = torch.cat(
        [torch.full((count, 1), bits) for bits, count in layer.form.widths.items()]
    ).to(codes.device)
    bits = MAX_BITS if expand else _container(int(widths.max()), codes.numel())
    if bits == MAX_BITS:
        grow = 2 ** (MAX_BITS - widths)
        codes, zero, scale = (codes * grow).to(torch.uint8), zero * grow, scale / grow
    whole = zero.round().clamp(max=2**bits - 1)
    rest = ((whole - zero) * scale)[:, 0]
    if layer.places is not None:
        order = layer.places.long()
        codes, whole, scale, rest = codes[order], whole[order], scale[order], rest[order]
    return IntegerWeights(
        bits=bits,
        codes=codes,
        zero=whole.to(torch.uint8),
        scale=scale,
        rest=rest if bool(rest.any()) else None,
    )


def _container(widest: int, num_codes: int) -> int:
    # a row of codes must fill its bytes
    return next(b for b in CONTAINERS if b >= widest and num_codes % (MAX_BITS // b) == 0)
