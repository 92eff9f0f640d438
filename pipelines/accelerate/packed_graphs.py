"""Packed layers in operations that any engine knows, for one row, ready to be traced."""

from collections.abc import Sequence
from typing import no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from quant.constants import IntegerWeights, integer_weights
from quant.layers import PackedConv2d, PackedLayer, PackedLinear
from quant.precision import MAX_BITS

_HIGHEST = 2**MAX_BITS - 1


class Clock:
    """Tells all layers with stored input ranges what these are at the running row's timestep.

    All are mixed in one go, for a network has a hundred of them. Layers are told, and do not ask,
    so that they differ in nothing but numbers: one compiled block serves them all.
    """

    def __init__(self) -> None:
        self._layers: list[PlainLinear] = []
        self._ranges: list[Float[Tensor, "2 t"]] = []
        self._table: Sequence[float] = ()

    def add(
        self, layer: "PlainLinear", ranges: Float[Tensor, "2 t"], table: Sequence[float]
    ) -> None:
        """Take a layer in.

        Args:
            layer: Who is told.
            ranges: Its scale and zero point at each timestep.
            table: These timesteps, falling; the same for all layers.
        """
        self._layers.append(layer)
        self._ranges.append(ranges)
        self._table = table

    def start(self, timestep: Float[Tensor, " 1"]) -> None:
        """Mix all ranges for a row that is about to run.

        Args:
            timestep: Its timestep.
        """
        if not self._ranges:
            return
        # How many entries lie behind, the last of them in part; then the mix of its two neighbours.
        ranges = torch.stack(self._ranges)
        table = torch.tensor(self._table, device=ranges.device)
        above, below = table[:-1], table[1:]
        place = ((above - timestep) / (above - below)).clamp(0, 1).sum()
        shares = (1 - (torch.arange(len(table), device=table.device) - place).abs()).clamp(min=0)
        scales, zeros = (ranges * shares).sum(-1).unbind(-1)
        parts = zip(self._layers, scales.split(1), zeros.round().split(1), strict=True)
        for layer, scale, zero in parts:
            # Views of one tensor differ in where they start, which a compiled block would ask.
            layer.scale, layer.zero = scale.clone(), zero.clone()


def plain_layer(
    layer: PackedLayer, clock: Clock, *, code_bits: int | None
) -> tuple[nn.Module, IntegerWeights | None]:
    """Return what a packed layer computes, in plain operations.

    Args:
        layer: The packed layer.
        clock: Tells its input ranges.
        code_bits: Signed bits in which codes are multiplied with those of stored input ranges;
            None never multiplies codes.

    Returns:
        The module, and its weight in whole numbers where it has one.
    """
    if isinstance(layer, PackedConv2d):
        return _PlainConvolution(layer), None
    assert isinstance(layer, PackedLinear)
    if code_bits is not None and layer.form.num_ranges:
        signed = integer_weights(layer, signed_bits=code_bits)
        if signed is not None:
            return _CodeProduct(layer, signed, clock), signed
    codes = integer_weights(layer, signed_bits=code_bits and MAX_BITS)
    return _FloatProduct(layer, codes, clock), codes


class PlainLinear(nn.Module):
    """What all kinds of product share: smoothing before, float branch and bias after.

    Attributes:
        weight: What inputs are multiplied with, as floats or codes.
        highest: Largest code of an input.
        scale: Distance of two levels of inputs with stored ranges.
        zero: Their whole zero point.

    Args:
        layer: The packed layer.
        weight: What inputs are multiplied with.
        clock: Tells its input ranges.
    """

    weight: Tensor
    scale: Float[Tensor, " 1"]
    zero: Float[Tensor, " 1"]

    def __init__(self, layer: PackedLinear, weight: Tensor, clock: Clock) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.highest = 2.0**layer.form.activation_bits - 1
        self._is_stored = layer.form.num_ranges > 0
        if layer.form.num_ranges == 1:
            scale, zero = layer.ranges.float()
            self.scale, self.zero = scale, zero.round()
        elif layer.form.num_ranges:
            clock.add(self, layer.ranges.float(), layer.timesteps.table)
        ones = torch.ones(1, layer.in_features, device=weight.device)
        self._shrink = layer.smoothed(ones) if layer.form.smoothed else None
        self._branch = (layer.down.float(), layer.up.float()) if layer.form.rank else None
        self._bias = None if layer.bias is None else layer.bias.float()

    @no_type_check  # torch's compiler does not see through what checks shapes in tests
    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Multiply.

        Args:
            x: Inputs.
        """
        heard = x if self._shrink is None else x * self._shrink.to(x.dtype)
        output = self.product(heard)
        if self._branch is not None:
            down, up = (part.to(x.dtype) for part in self._branch)
            output = output + F.linear(F.linear(heard, down), up)
        return output if self._bias is None else output + self._bias.to(x.dtype)

    def product(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Multiply smoothed inputs with the weight alone.

        Args:
            x: Smoothed inputs.
        """
        raise NotImplementedError

    @no_type_check
    def input_grid(
        self, x: Float[Tensor, "*b i"]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return scale and whole zero point of the inputs, as stored or of each token.

        Args:
            x: Smoothed inputs.
        """
        if self._is_stored:
            return self.scale, self.zero
        low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
        scale = ((high - low) / self.highest).clamp(min=1e-30)
        return scale, (-low / scale).round()


def _with_rest(
    output: Float[Tensor, "*b o"], x: Float[Tensor, "*b i"], rest: Float[Tensor, " o"] | None
) -> Float[Tensor, "*b o"]:
    """Add what the whole numbers of a weight left over."""
    return output if rest is None else output + x.sum(-1, keepdim=True) * rest.to(x.dtype)


class _FloatProduct(PlainLinear):
    """Weights are expanded to floats, or left to the engine; inputs lie on the layer's grid.

    Inputs of eight bits with a range per token stay as they are: the engine rounds them itself, or
    is more exact. All others are rounded here, to the very codes of the packed layer: a network
    that learned with clipped inputs must have them clipped.
    """

    def __init__(self, layer: PackedLinear, codes: IntegerWeights | None, clock: Clock) -> None:
        super().__init__(layer, _float_rows(layer) if codes is None else codes.weight, clock)
        self._rest = None if codes is None else codes.rest
        self._rounds = self._is_stored or 0 < layer.form.activation_bits < MAX_BITS

    def product(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        rounded = self._rounded(x) if self._rounds else x
        return _with_rest(F.linear(rounded, self.weight), rounded, self._rest)

    def _rounded(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b i"]:
        exact = x.float()
        scale, zero = self.input_grid(exact)
        return (((exact / scale + zero).round().clamp(0, self.highest) - zero) * scale).to(x.dtype)


class _CodeProduct(PlainLinear):
    """Codes of inputs times codes of weights: sum (a - za) b s = s (sum a b - za sum b).

    The engine sees a rounding to 0..255 that never changes, so it multiplies bytes; what changes
    from timestep to timestep is applied before and after.
    """

    def __init__(self, layer: PackedLinear, codes: IntegerWeights, clock: Clock) -> None:
        super().__init__(layer, codes.weight, clock)
        self._rest = codes.rest
        self._weight_sums = _float_rows(layer).sum(-1)

    def product(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        scale, zero = self.scale, self.zero
        levels = x / scale + zero
        if self.highest < _HIGHEST:
            levels = levels.clamp(max=self.highest)
        codes = torch.fake_quantize_per_tensor_affine(levels, 1.0, 0, 0, _HIGHEST)
        output = _with_rest(F.linear(codes, self.weight), codes, self._rest)
        return (output - zero * self._weight_sums) * scale


class _PlainConvolution(nn.Module):
    def __init__(self, layer: PackedConv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight, requires_grad=False)
        self._bias = layer.bias
        self._packed = layer.multiply

    def forward(self, x: Tensor) -> Tensor:
        output = self._packed(x, self.weight)
        return output if self._bias is None else output + self._bias[:, None, None]


def _float_rows(layer: PackedLinear) -> Float[Tensor, "o i"]:
    rows = layer.sorted_weight()
    return rows if layer.places is None else rows[layer.places.long()]
