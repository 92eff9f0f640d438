"""Packed layers as whole numbers, for engines that keep them packed or multiply them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from quant.layers import PackedLayer
from quant.precision import MAX_BITS

CONTAINERS = (2, 4, MAX_BITS)
"""Bits that engines keep codes in."""


_MIDDLE = 2 ** (MAX_BITS - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class IntegerWeights:
    """A weight matrix as an engine takes it: (codes - zero) * scale + rest, row by row.

    Attributes:
        bits: Bits that every code fits in: 2, 4 or 8.
        codes: One row per output channel, in the layer's own order; signed ones need no zero point.
        zero: Whole zero point of each row, in as many bits; None where codes are signed.
        scale: Distance of two levels of each row.
        rest: What whole numbers leave over, times the scale: added to every weight of its row,
            which is the sum of the inputs times it; None where it is 0 everywhere.
    """

    bits: int
    codes: UInt8[Tensor, "o i"] | Int8[Tensor, "o i"]
    zero: UInt8[Tensor, "o 1"] | None
    scale: Float[Tensor, "o 1"]
    rest: Float[Tensor, " o"] | None

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """The float weight without its rest."""
        zero = 0 if self.zero is None else self.zero.float()
        return (self.codes.float() - zero) * self.scale


def integer_weights(layer: PackedLayer, *, signed_bits: int | None = None) -> IntegerWeights | None:
    """Return the smoothed weight of a packed layer in whole numbers, without any rounding.

    Zero points lie on fractions of a code, so whole ones leave a rest.

    Args:
        layer: The layer; its float branch and smoothing are not part of the result.
        signed_bits: Take so many signed bits for every code, 7 or 8, as products of whole numbers
            want them; None takes the fewest unsigned ones that hold them.

    Returns:
        The weights; None for a layer whose rows have several scales, or codes of more bits than
        that.
    """
    if layer.scale.shape[1] > 1:
        return None
    codes, zero, scale = layer.sorted_codes(), layer.sorted_zero(), layer.scale.float()
    widths = torch.cat(
        [torch.full((count, 1), bits) for bits, count in layer.form.widths.items()]
    ).to(codes.device)
    widest = int(widths.max())
    bits, room = _container(widest, codes.numel()), MAX_BITS
    if signed_bits is not None:
        bits, room = MAX_BITS, signed_bits - 1  # differences need one bit more than codes
        if widest > room and signed_bits < MAX_BITS:
            return None
    if bits == MAX_BITS:  # there is room for most of the fraction, or for all of it
        grow = 2 ** (room - widths).clamp(min=0)
        codes, zero, scale = (codes * grow).to(torch.uint8), zero * grow, scale / grow
    whole = zero.round().clamp(max=2**bits - 1)
    if signed_bits is not None:  # differences of eight bits need nine
        whole = torch.where(widths == MAX_BITS, _MIDDLE, whole)
        codes = (codes.short() - whole.short()).to(torch.int8)
    rest = ((whole - zero) * scale)[:, 0]
    if layer.places is not None:
        order = layer.places.long()
        codes, whole, scale, rest = codes[order], whole[order], scale[order], rest[order]
    return IntegerWeights(
        bits=bits,
        codes=codes,
        zero=whole.to(torch.uint8) if signed_bits is None else None,
        scale=scale,
        rest=rest if bool(rest.any()) else None,
    )


def _container(widest: int, num_codes: int) -> int:
    # a row of codes must fill its bytes
    return next(b for b in CONTAINERS if b >= widest and num_codes % (MAX_BITS // b) == 0)
