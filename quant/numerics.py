"""Affine grids, as pure functions. Read `fake_quantize` first.

A grid has a scale and a zero point per row, or per group of inputs inside a row:

    code = clip(round(x / scale + zero), 0, 2**bits - 1)        x' = (code - zero) * scale

Zero points lie on fractions of 1/2**(8 - bits), so that one byte stores them; scales are bfloat16.
Codes are found on the stored grid, so reading a file back gives the very numbers that were trained.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

SHRINK_STEPS = 80
SHRINK_STEP = 0.01
COARSE = 8
ERROR_POWER = 2.4
TINIEST_SCALE = 1e-30


def fake_quantize(
    x: Float[Tensor, "..."],
    scale: Float[Tensor, "..."],
    zero: Float[Tensor, "..."],
    levels: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """Put numbers on a grid and come back to float; gradients pass the rounding straight through.

    Inside the range the gradient to x is 1; outside it is 0 and goes to scale and zero instead.

    Args:
        x: What is rounded.
        scale: Distance of two levels, above 0; broadcast against x.
        zero: Code of the number 0, not necessarily whole.
        levels: Highest code, 2**bits - 1.

    Returns:
        Numbers on the grid.

    Source: Jacob et al., arXiv 1712.05877, equation 1; straight-through rounding of Bengio et al.,
        arXiv 1308.3432. Differs from MPQ-DM's released quantizer: the zero point is added before
        rounding, so that every value is one of 2**bits codes even where the zero is fractional.
    """
    if torch.is_grad_enabled() and any(part.requires_grad for part in (x, scale, zero)):
        through: Tensor = _FakeQuantize.apply(x, scale, zero, levels)  # type: ignore[no-untyped-call]
        return through
    codes = (x / scale + zero).round().clamp(min=0).minimum(levels)
    return (codes - zero) * scale


class _FakeQuantize(torch.autograd.Function):
    """The same with its gradient written down, which saves a third of the time.

    With u = x / scale + zero, x' = (code - zero) * scale and code = u inside the range:
    dx'/dx = 1 inside, else 0; dx'/dzero = -scale outside, else 0;
    dx'/dscale = code - zero, less x / scale inside.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, levels: Tensor) -> Tensor:  # noqa: ANN401
        share = x / scale
        rounded = (share + zero).round_()
        codes = rounded.clamp(min=0).minimum(levels)
        is_inside = codes == rounded
        steps = codes - zero
        slope = torch.where(is_inside, steps - share, steps)
        ctx.save_for_backward(is_inside, slope, scale)
        ctx.shapes = x.shape, zero.shape
        return steps * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # noqa: ANN401
        is_inside, slope, scale = ctx.saved_tensors
        x_shape, zero_shape = ctx.shapes
        of_x = gradient * is_inside
        of_scale = (gradient * slope).sum_to_size(scale.shape)
        of_zero = ((of_x - gradient) * scale).sum_to_size(zero_shape)
        return of_x.sum_to_size(x_shape), of_scale, of_zero, None


def round_through(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Round, with the gradient of the identity.

    Args:
        x: Any numbers.

    Returns:
        Whole numbers.
    """
    return x + (x.round() - x).detach()


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Grids of a weight matrix.

    Attributes:
        scale: Distance of two levels, per row and group of inputs.
        zero: Code of the number 0.
        widths: Bits of each row.
    """

    scale: Float[Tensor, "o g"]
    zero: Float[Tensor, "o g"]
    widths: Int[Tensor, " o"]

    @property
    def levels(self) -> Float[Tensor, "o 1"]:
        """Highest code of each row."""
        return (2.0 ** self.widths.to(self.scale.dtype) - 1)[:, None]


def quantize(weight: Float[Tensor, "o i"], grid: Grid) -> UInt8[Tensor, "o i"]:
    """Return the codes of a weight matrix.

    Args:
        weight: One row per output channel.
        grid: Its grids.

    Returns:
        Codes, each below 2**bits of its row.
    """
    scale, zero = spread(grid.scale, weight.shape[1]), spread(grid.zero, weight.shape[1])
    codes = torch.clamp(torch.round(weight / scale + zero), min=0)
    return torch.minimum(codes, grid.levels).to(torch.uint8)


def dequantize(codes: UInt8[Tensor, "o i"], grid: Grid) -> Float[Tensor, "o i"]:
    """Return the numbers that codes stand for.

    Args:
        codes: What `quantize` returned.
        grid: Its grids.
    """
    scale, zero = spread(grid.scale, codes.shape[1]), spread(grid.zero, codes.shape[1])
    return (codes.to(scale.dtype) - zero) * scale


def spread(values: Float[Tensor, "o g"], num_inputs: int) -> Float[Tensor, "o _"]:
    """Repeat a value per group for each of its inputs.

    Args:
        values: One per row and group; groups are equal but for a shorter last one.
        num_inputs: Length of a row.

    Returns:
        A view of one column where a row is one group, else one value per input.
    """
    num_groups = values.shape[1]
    if num_groups == 1:
        return values
    size = -(-num_inputs // num_groups)
    return values.repeat_interleave(size, dim=1)[:, :num_inputs]


def min_max_grid(
    weight: Float[Tensor, "o i"],
    widths: Int[Tensor, " o"],
    *,
    group_size: int = 0,
    whole_zero: bool = False,
) -> Grid:
    """Return grids that reach from the smallest to the largest weight.

    Args:
        weight: One row per output channel.
        widths: Bits of each row.
        group_size: Inputs that share a scale; 0 is the whole row.
        whole_zero: Round zero points to whole codes, as published quantizers do.

    Returns:
        The grids; a row of zeros gets scale 1.
    """
    low, high = _extremes(weight, group_size)
    return _grid(low, high, widths, whole_zero=whole_zero)


def search_grid(
    weight: Float[Tensor, "o i"],
    widths: Int[Tensor, " o"],
    *,
    whole_zero: bool = False,
    coarse: bool = False,
) -> Grid:
    """Return the grid of each row whose shrunken range leaves the least |error|**2.4.

    Args:
        weight: One row per output channel.
        widths: Bits of each row.
        whole_zero: Round zero points to whole codes, as published quantizers do.
        coarse: Try every eighth share only, for comparisons.

    Returns:
        The best share of each row's range among 80, 1.00 down to 0.21: every eighth is tried, then
        all around the best of them.

    Source: MPQ-DM, arXiv 2412.11549, after BRECQ's initialisation, which tries all 80. Differs: a
        fractional zero point unless `whole_zero`; at one bit a whole one would force a level to
        zero.
    """
    low, high = _extremes(weight, 0)
    ones = torch.ones_like(low)
    best = _Search(weight, widths, low, high, ones, whole_zero=whole_zero)
    for step in range(0, SHRINK_STEPS, COARSE):
        best.attempt(ones - SHRINK_STEP * step)
    if not coarse:
        centre = best.share.clone()
        for step in range(1 - COARSE, COARSE):
            best.attempt(
                (centre + SHRINK_STEP * step).clamp(1 - SHRINK_STEP * (SHRINK_STEPS - 1), 1)
            )
    return Grid(scale=best.scale, zero=best.zero, widths=widths)


class _Search:
    """The best grid of each row so far."""

    def __init__(
        self,
        weight: Tensor,
        widths: Tensor,
        low: Tensor,
        high: Tensor,
        share: Tensor,
        *,
        whole_zero: bool,
    ) -> None:
        self._weight, self._widths, self._low, self._high = weight, widths, low, high
        self._whole_zero, self.share = whole_zero, share
        self._least = torch.full_like(low, torch.inf)
        self.scale, self.zero = torch.ones_like(low), torch.zeros_like(low)

    def attempt(self, share: Tensor) -> None:
        low, high = self._low * share, self._high * share
        grid = _grid(low, high, self._widths, whole_zero=self._whole_zero)
        values = (self._weight / grid.scale).add_(grid.zero).round_().clamp_(min=0)
        values = torch.minimum(values, grid.levels).sub_(grid.zero).mul_(grid.scale)
        error = values.sub_(self._weight).abs_().pow_(ERROR_POWER).mean(dim=1, keepdim=True)
        better = error < self._least
        self._least = torch.where(better, error, self._least)
        self.share = torch.where(better, share, self.share)
        self.scale = torch.where(better, grid.scale, self.scale)
        self.zero = torch.where(better, grid.zero, self.zero)


def range_grid(
    low: Float[Tensor, "..."],
    high: Float[Tensor, "..."],
    bits: Int[Tensor, "..."],
    *,
    whole_zero: bool = False,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Return the stored scale and zero point of a range, which is widened to hold 0.

    Args:
        low: Smallest number.
        high: Largest number.
        bits: Width, broadcast against the range.
        whole_zero: Round the zero point to a whole code.

    Returns:
        Scale (1 where the range is empty) and zero point.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    levels = 2.0 ** bits.to(low.dtype) - 1
    scale = (high - low) / levels
    scale = stored_scale(torch.where(scale > TINIEST_SCALE, scale, torch.ones_like(scale)))
    zero = -low / scale
    return scale, zero.round().clamp(max=levels) if whole_zero else stored_zero(zero, bits)


def stored_scale(scale: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Round scales to what a file holds, bfloat16.

    Args:
        scale: Scales; what is not above 0 becomes the tiniest one.

    Returns:
        Rounded scales, in the dtype that came.
    """
    return scale.clamp(min=TINIEST_SCALE).to(torch.bfloat16).to(scale.dtype)


def stored_zero(zero: Float[Tensor, "..."], bits: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Round zero points to 128 steps over the codes of a width, or to whole codes of eight bits.

    A byte holds twice as many steps; with these, code minus zero point is a whole number of steps
    that fits a signed byte, which is what processors multiply.

    Args:
        zero: Zero points.
        bits: Their widths.

    Returns:
        Rounded zero points between 0 and the highest code.
    """
    width = bits.to(zero.dtype)
    step = (2.0**width / 128).clamp(max=1)
    return ((zero / step).round() * step).clamp(min=0).minimum(2.0**width - 1)


def zero_to_byte(zero: Float[Tensor, "..."], bits: Int[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Return the byte of a zero point that `stored_zero` gave.

    Args:
        zero: Rounded zero points.
        bits: Their widths.
    """
    return (zero * 256 / 2.0 ** bits.to(zero.dtype)).round().to(torch.uint8)


def byte_to_zero(byte: UInt8[Tensor, "..."], bits: int) -> Float[Tensor, "..."]:
    """Return the zero point that a byte stands for.

    Args:
        byte: What `zero_to_byte` returned.
        bits: Its width.
    """
    return byte.float() * (2.0**bits / 256)


def smoothing_to_byte(factors: Float[Tensor, " i"]) -> UInt8[Tensor, " i"]:
    """Return the byte of each factor: eighths of an octave around 2**0 = 128.

    Args:
        factors: Above 0.
    """
    return (factors.log2() * 8 + 128).round().clamp(0, 255).to(torch.uint8)


def byte_to_smoothing(byte: UInt8[Tensor, " i"]) -> Float[Tensor, " i"]:
    """Return the factor that a byte stands for.

    Args:
        byte: What `smoothing_to_byte` returned.
    """
    return torch.exp2((byte.float() - 128) / 8)


def _extremes(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    if not group_size or group_size >= weight.shape[1]:
        return weight.amin(dim=1, keepdim=True), weight.amax(dim=1, keepdim=True)
    num_groups = -(-weight.shape[1] // group_size)
    parts = weight.split(-(-weight.shape[1] // num_groups), dim=1)  # the size that `spread` assumes
    low = torch.stack([part.amin(dim=1) for part in parts], dim=1)
    return low, torch.stack([part.amax(dim=1) for part in parts], dim=1)


def _grid(low: Tensor, high: Tensor, widths: Tensor, *, whole_zero: bool) -> Grid:
    scale, zero = range_grid(low, high, widths[:, None], whole_zero=whole_zero)
    return Grid(scale=scale, zero=zero, widths=widths)
