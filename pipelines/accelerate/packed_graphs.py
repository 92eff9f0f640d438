"""Packed layers in operations that any engine knows, for one row, ready to be traced."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from quant.constants import IntegerWeights, integer_weights
from quant.layers import PackedConv2d, PackedLayer, PackedLinear
from quant.precision import MAX_BITS

_HIGHEST = 2**MAX_BITS - 1


class Clock:
    """Scales and zero points of all stored input ranges at the timestep of the running row.

    All are mixed in one go, for a network has a hundred of them.
    """

    def __init__(self) -> None:
        self._ranges: list[Float[Tensor, "2 t"]] = []
        self._table: Sequence[float] = ()
        self._now: tuple[Sequence[Tensor], Sequence[Tensor]] = ((), ())

    def add(self, ranges: Float[Tensor, "2 t"], table: Sequence[float]) -> int:
        """Take a layer in.

        Args:
            ranges: Its scale and zero point at each timestep.
            table: These timesteps, falling; the same for all layers.

        Returns:
            Its number.
        """
        self._ranges.append(ranges)
        self._table = table
        return len(self._ranges) - 1

    def start(self, timestep: Float[Tensor, " 1"]) -> None:
        """Mix all ranges for a row that is about to run.

        Args:
            timestep: Its timestep.
        """
        if not self._ranges:
            return
        # How many entries lie behind, the last of them in part; then the mix of its two neighbours.
        above, below = torch.tensor(self._table[:-1]), torch.tensor(self._table[1:])
        place = ((above - timestep) / (above - below)).clamp(0, 1).sum()
        shares = (1 - (torch.arange(len(self._table)) - place).abs()).clamp(min=0)
        scales, zeros = (torch.stack(self._ranges) * shares).sum(-1).unbind(-1)
        self._now = scales.split(1), zeros.round().split(1)

    def read(self, number: int) -> tuple[Float[Tensor, " 1"], Float[Tensor, " 1"]]:
        """Return scale and whole zero point of a layer's inputs.

        Args:
            number: Which layer, as `add` said.
        """
        scales, zeros = self._now
        return scales[number], zeros[number]


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


class _PlainLinear(nn.Module):
    """What both kinds of product share: smoothing before, float branch and bias after."""

    weight: Tensor

    def __init__(self, layer: PackedLinear, codes: IntegerWeights | None, clock: Clock) -> None:
        super().__init__()
        self.register_buffer("weight", _float_rows(layer) if codes is None else codes.weight)
        self._rest = None if codes is None else codes.rest
        self._highest = 2.0**layer.form.activation_bits - 1
        self._clock = clock
        self._constant, self._number = None, None
        if layer.form.num_ranges == 1:
            scale, zero = layer.ranges.float()
            self._constant = scale, zero.round()
        elif layer.form.num_ranges:
            self._number = clock.add(layer.ranges.float(), layer.timesteps.table)
        self._shrink = (
            layer.smoothed(torch.ones(1, layer.in_features)) if layer.form.smoothed else None
        )
        self._branch = (layer.down.float(), layer.up.float()) if layer.form.rank else None
        self._bias = None if layer.bias is None else layer.bias.float()

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Multiply.

        Args:
            x: Inputs.
        """
        heard = x if self._shrink is None else x * self._shrink
        output = self.product(heard)
        if self._branch is not None:
            down, up = self._branch
            output = output + F.linear(F.linear(heard, down), up)
        return output if self._bias is None else output + self._bias

    def product(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Multiply smoothed inputs with the weight alone.

        Args:
            x: Smoothed inputs.
        """
        raise NotImplementedError

    def with_rest(
        self, output: Float[Tensor, "*b o"], x: Float[Tensor, "*b i"]
    ) -> Float[Tensor, "*b o"]:
        """Add what the whole numbers of the weight left over.

        Args:
            output: The product so far.
            x: What was multiplied.
        """
        return output if self._rest is None else output + x.sum(-1, keepdim=True) * self._rest

    def stored_grid(self) -> tuple[Float[Tensor, " 1"], Float[Tensor, " 1"]]:
        """Return scale and zero point of the inputs from the stored ranges."""
        if self._constant is not None:
            return self._constant
        assert self._number is not None
        return self._clock.read(self._number)


class _FloatProduct(_PlainLinear):
    """Weights are expanded to floats, or left to the engine; inputs lie on the layer's grid.

    Inputs of eight bits with a range per token stay as they are: the engine rounds them itself, or
    is more exact. All others are rounded here, to the very codes of the packed layer: a network
    that learned with clipped inputs must have them clipped.
    """

    def __init__(self, layer: PackedLinear, codes: IntegerWeights | None, clock: Clock) -> None:
        super().__init__(layer, codes, clock)
        self._is_stored = layer.form.num_ranges > 0
        self._rounds = self._is_stored or 0 < layer.form.activation_bits < MAX_BITS

    def product(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        rounded = self._rounded(x) if self._rounds else x
        return self.with_rest(F.linear(rounded, self.weight), rounded)

    def _rounded(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b i"]:
        if self._is_stored:
            scale, zero = self.stored_grid()
        else:
            low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
            scale = ((high - low) / self._highest).clamp(min=1e-30)
            zero = (-low / scale).round()
        return ((x / scale + zero).round().clamp(0, self._highest) - zero) * scale


class _CodeProduct(_PlainLinear):
    """Codes of inputs times codes of weights: sum (a - za) b s = s (sum a b - za sum b).

    The engine sees a rounding to 0..255 that never changes, so it multiplies bytes; what changes
    from timestep to timestep is applied before and after.
    """

    def __init__(self, layer: PackedLinear, codes: IntegerWeights, clock: Clock) -> None:
        super().__init__(layer, codes, clock)
        self._weight_sums = _float_rows(layer).sum(-1)

    def product(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        scale, zero = self.stored_grid()
        levels = x / scale + zero
        if self._highest < _HIGHEST:
            levels = levels.clamp(max=self._highest)
        codes = torch.fake_quantize_per_tensor_affine(levels, 1.0, 0, 0, _HIGHEST)
        output = self.with_rest(F.linear(codes, self.weight), codes)
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
