"""OMQ: which output channels get a bit more and which a bit less, by kurtosis. Read `allocate`.

A row with heavy tails (large kurtosis) loses most on a coarse grid. The rows of largest kurtosis
get one bit more than asked, as many of the smallest one bit less, so that the average stays.

Source: Feng et al., "MPQ-DM", arXiv 2412.11549, section on outlier-driven mixed quantization.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.errors import InputError
from quant.numerics import (
    Grid,
    byte_to_smoothing,
    dequantize,
    fake_quantize,
    min_max_grid,
    quantize,
    range_grid,
    search_grid,
    smoothing_to_byte,
)
from quant.precision import MAX_BITS, MIN_BITS

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
RELEASED_SHARES = (0.0, 0.1)
PLUS_SHARE = 0.1
SMALLEST_RATIO = 1e-5
QUIET_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """What one layer was given.

    Attributes:
        widths: Bits of each output channel.
        kurtosis: Kurtosis of each row of the scaled weight.
        share: Part of the channels that was moved up, and as many down.
        error: Mean squared error of the layer's outputs with these widths.
        power: Mean square of the layer's outputs, which the error is to be seen beside.
    """

    widths: Int[Tensor, " o"]
    kurtosis: Float[Tensor, " o"]
    share: float
    error: float
    power: float


def allocate(
    weight: Float[Tensor, "o i"],
    inputs: Float[Tensor, "m i"],
    bits: int,
    *,
    activation_bits: int | None = None,
    shares: Sequence[float] = SHARES,
    plus: bool = False,
    released: bool = False,
) -> Allocation:
    """Find how many channels to move so that the layer's output changes least.

    Args:
        weight: Scaled weight, one row per output channel.
        inputs: A sample of the layer's inputs, scaled alike.
        bits: Average bits of a weight.
        activation_bits: Bits of the inputs; None leaves them in float.
        shares: Parts of the channels to try, 0..0.5.
        plus: Give another tenth of the channels a bit more, without taking one elsewhere.
        released: Search as the published code does: min-max grids with whole zero points, and
            inputs in float.

    Returns:
        The best allocation; the smaller share wins a tie.

    Raises:
        InputError: If a share is out of range.
    """
    if not all(0.0 <= share <= 0.5 for share in shares):
        raise InputError(f"Shares of moved channels are {tuple(shares)}: 0 to 0.5.", param="shares")
    tails = kurtosis(weight)
    target = inputs @ weight.T
    heard = inputs if released else _rounded_inputs(inputs, activation_bits)
    by_width = _outputs_by_width(weight, heard, bits, released=released)
    best: Allocation | None = None
    for share in sorted(set(shares)):
        widths = move(tails, bits, int(share * len(tails)), plus=plus)
        output = torch.stack([by_width[int(w)][:, o] for o, w in enumerate(widths)], dim=1)
        error = float((output - target).square().mean())
        if best is None or error < best.error:
            power = float(target.square().mean())
            best = Allocation(widths=widths, kurtosis=tails, share=share, error=error, power=power)
    assert best is not None
    return best


def kurtosis(rows: Float[Tensor, "o i"]) -> Float[Tensor, " o"]:
    """Return the fourth moment over the squared variance of each row, 3 for a normal one.

    Args:
        rows: One per output channel.

    Returns:
        Kurtosis; 0 for rows that do not vary, which any grid holds exactly.

    Source: MPQ-DM's code: unbiased variance, no excess.
    """
    if rows.shape[1] < 2:
        return torch.zeros(len(rows), dtype=rows.dtype, device=rows.device)
    centred = rows - rows.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1) / (rows.shape[1] - 1)
    # What rounding leaves of a constant row is no variance.
    floor = (rows.abs().amax(dim=1) * torch.finfo(rows.dtype).eps * 4).square()
    varies = variance > floor
    spread = torch.where(varies, variance, torch.ones_like(variance)).sqrt()
    fourth = (centred / spread[:, None]).pow(4).mean(dim=1)
    return torch.where(varies, fourth, torch.zeros_like(fourth))


def move(
    tails: Float[Tensor, " o"], bits: int, count: int, *, plus: bool = False
) -> Int[Tensor, " o"]:
    """Give the heaviest tails one bit more and as many of the lightest one bit less.

    Args:
        tails: Kurtosis per channel.
        bits: What all others get.
        count: Channels on each side; at the ends of 1 and 8 bits nothing moves.
        plus: Give the next tenth one bit more too.

    Returns:
        Bits per channel; equal tails keep their order.
    """
    widths = torch.full((len(tails),), bits, dtype=torch.int64, device=tails.device)
    order = torch.argsort(tails, stable=True)
    if MIN_BITS < bits < MAX_BITS and count:
        widths[order[:count]] = bits - 1
        widths[order[len(order) - count :]] = bits + 1
    if plus and bits < MAX_BITS:
        first = len(order) - count - int(PLUS_SHARE * len(order))
        widths[order[max(first, count) : len(order) - count]] = bits + 1
    return widths


def smoothing(
    input_peaks: Float[Tensor, " i"],
    weight: Float[Tensor, "o i"],
    *,
    quiet_share: float = QUIET_SHARE,
) -> Float[Tensor, " i"]:
    """Return the factors that shift large inputs into the weights.

    The weight's columns are multiplied by them and the inputs divided. A channel that was hardly
    heard while listening would be divided by next to nothing, and whatever comes through it later
    would leave the range of all inputs; so it counts as half as loud as the median channel.

    Args:
        input_peaks: Largest absolute input of each channel.
        weight: One row per output channel.
        quiet_share: Quieter channels count as this share of the median one; 0 as what they are.

    Returns:
        sqrt(max|x| / max|w|) per input channel, on the stored scale of eighths of an octave; 1
        where a channel or its weights are dead.

    Source: Xiao et al., "SmoothQuant", arXiv 2211.10438, equation 4 with alpha 1/2, as in MPQ-DM.
        Differs: quiet channels, as above; dead channels give 1 and not 0, whose inverse is no
        number.
    """
    weight_peaks = weight.abs().amax(dim=0)
    alive = (input_peaks > 0) & (weight_peaks > 0)
    if alive.any():
        input_peaks = input_peaks.clamp(min=quiet_share * input_peaks[alive].median())
    ratio = torch.where(alive, input_peaks / weight_peaks.clamp(min=1e-30), 1.0)
    factors = ratio.clamp(SMALLEST_RATIO, 1 / SMALLEST_RATIO).sqrt()
    return byte_to_smoothing(smoothing_to_byte(factors))


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One way to store a layer.

    Attributes:
        bits: What it costs, in bits of storage.
        error: What it loses; comparable between layers.
        label: What the choice is, for the caller.
    """

    bits: int
    error: float
    label: object = None


def spend(choices: Mapping[str, Sequence[Choice]], budget_bits: int) -> dict[str, Choice]:
    """Choose one way per layer so that the whole loses least within a size.

    Starting from the cheapest of each, the step with the largest fall of error per bit is taken as
    long as it fits, along the lower convex hull of each layer's choices: the optimum of the
    relaxed problem, and of the exact one wherever the last step spends the budget fully.

    Args:
        choices: Per layer, at least one each.
        budget_bits: Most bits that all layers may take.

    Returns:
        The choice of each layer.

    Raises:
        InputError: If even the cheapest choices do not fit.
    """
    hulls = {name: _lower_hull(options) for name, options in choices.items()}
    taken = dict.fromkeys(hulls, 0)
    spent = sum(hull[0].bits for hull in hulls.values())
    if spent > budget_bits:
        raise InputError(
            f"The smallest form takes {spent} bits, the budget is {budget_bits}: allow more.",
            param="budget_bits",
        )
    steps = sorted(
        (
            ((before.error - after.error) / (after.bits - before.bits), name, index)
            for name, hull in hulls.items()
            for index, (before, after) in enumerate(pairwise(hull), start=1)
        ),
        key=lambda step: (-step[0], step[1], step[2]),
    )
    for _, name, index in steps:
        cost = hulls[name][index].bits - hulls[name][index - 1].bits
        if taken[name] == index - 1 and spent + cost <= budget_bits:
            taken[name], spent = index, spent + cost
    return {name: hulls[name][index] for name, index in taken.items()}


def _lower_hull(options: Sequence[Choice]) -> list[Choice]:
    hull: list[Choice] = []
    for option in sorted(options, key=lambda choice: (choice.bits, choice.error)):
        if hull and option.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _slope(hull[-2], option) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _slope(before: Choice, after: Choice) -> float:
    return (before.error - after.error) / (after.bits - before.bits)


def _outputs_by_width(
    weight: Tensor, inputs: Tensor, bits: int, *, released: bool
) -> dict[int, Tensor]:
    # Rows are quantized one by one, so each width is done once and shares only pick columns.
    found: dict[int, Tensor] = {}
    for width in range(max(MIN_BITS, bits - 1), min(MAX_BITS, bits + 1) + 1):
        widths = torch.full((len(weight),), width, dtype=torch.int64, device=weight.device)
        grid = _trial_grid(weight, widths, released=released)
        found[width] = inputs @ dequantize(quantize(weight, grid), grid).T
    return found


def _trial_grid(weight: Tensor, widths: Tensor, *, released: bool) -> Grid:
    if released:
        return min_max_grid(weight, widths, whole_zero=True)
    return search_grid(weight, widths, coarse=True)


def _rounded_inputs(inputs: Tensor, bits: int | None) -> Tensor:
    if bits is None or not inputs.numel():
        return inputs
    width = torch.tensor(bits, device=inputs.device)
    scale, zero = range_grid(inputs.min(), inputs.max(), width)
    levels = 2.0 ** width.to(inputs.dtype) - 1
    return fake_quantize(inputs, scale, zero, levels)
