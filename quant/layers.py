"""Linear and convolution layers whose weights stay packed in memory. Read `PackedLayer.forward`.

Output channels stand sorted by width, so that each width is one block of bytes; the order is undone
at the output. Unpacked weights live for one call.
"""

import json
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from core.devices import has_byte_units
from core.errors import InputError
from quant.formats import num_inputs, tensor_shapes
from quant.integers import INT8_OFFSET, input_offset, per_row, signed_inputs
from quant.manifest import LayerFormat
from quant.numerics import (
    Grid,
    byte_to_smoothing,
    byte_to_zero,
    fake_quantize,
    quantize,
    smoothing_to_byte,
    spread,
    zero_to_byte,
)
from quant.packing import pack, packed_bytes, unpack
from quant.precision import MAX_BITS
from quant.timesteps import Timesteps

_SMALLEST_CUDA_ROWS = 17


class PackedLayer(nn.Module):
    """A low-bit layer; the buffers are what a file holds.

    Attributes:
        codes: Weight codes, one block of bytes a width, narrow widths first.
        scale: Distance of two levels per output channel and group of inputs, channels sorted.
        zero: Zero points as bytes, likewise.
        widths: Two bits per channel in the layer's own order: bits above the narrowest width.
        smoothing: Byte per input channel that inputs are divided by.
        ranges: Scale and zero point of the inputs, one column per timestep.
        down: First factor of the float branch.
        up: Second factor of the float branch, channels in the layer's own order.

    Args:
        shape: Shape of the float weight, output channels first.
        form: How it is stored.
        timesteps: Where the running pass is.
        has_bias: Whether a bias is added.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    widths: Tensor
    smoothing: Tensor
    ranges: Tensor
    down: Tensor
    up: Tensor
    places: Tensor | None

    def __init__(
        self, shape: Sequence[int], form: LayerFormat, timesteps: Timesteps, *, has_bias: bool
    ) -> None:
        super().__init__()
        self.shape, self.form, self.timesteps = tuple(shape), form, timesteps
        for name, (size, kind) in tensor_shapes(self.shape, form).items():
            self.register_buffer(name, torch.empty(size, dtype=kind))
        self.register_buffer("places", None, persistent=False)  # where each channel stands sorted
        self.bias = nn.Parameter(torch.empty(self.shape[0])) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return what the float layer would, up to the few bits.

        Args:
            x: Inputs.
        """
        heard = self.smoothed(x)
        if self.form.activation_bits == 0:
            output = self.multiply(heard, self.sorted_weight().to(x.dtype))
        else:
            scale, zero = self.input_grid(heard)
            if self.computes_in_integers(heard):
                output = self.multiply_integers(heard, scale, zero)
            else:
                levels = torch.tensor(2.0**self.form.activation_bits - 1, device=x.device)
                rounded = fake_quantize(heard.float(), scale, zero, levels).to(x.dtype)
                output = self.multiply(rounded, self.sorted_weight().to(x.dtype))
        if self.places is not None:
            output = output.index_select(self.channel_dim, self.places.long())
        if self.form.rank:
            output = output + self.multiply_branch(heard)
        if self.bias is None:
            return output
        return output + self.bias.to(output.dtype).view(-1, *[1] * (-1 - self.channel_dim))

    channel_dim = -1

    @property
    def weight(self) -> Float[Tensor, "o i ..."]:
        """The float weight that the codes stand for, smoothing undone, made anew at every access.

        The float branch is part of it.
        """
        rows = self.sorted_weight()
        if self.places is not None:
            rows = rows[self.places.long()]
        if self.form.rank:
            branch = self.up.float() @ self.down.float()
            rows = rows + branch.view(rows.shape)
        if self.form.smoothed:
            rows = rows / self._smoothing_of(rows)
        return rows

    @property
    def num_bytes(self) -> int:
        """Bytes that the layer holds in memory, its bias aside."""
        return sum(b.numel() * b.element_size() for b in self.buffers())

    @property
    def code_bits(self) -> int:
        """The sum of bits: what the weights would take if nothing else were stored."""
        width = num_inputs(self.shape)
        return sum(bits * count * width for bits, count in self.form.widths.items())

    def smoothed(self, x: Tensor) -> Tensor:
        """Return the inputs, divided by their channels' factors.

        Args:
            x: Inputs as they come.
        """
        return x / self._smoothing_of(x).to(x.dtype) if self.form.smoothed else x

    def input_grid(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and zero point of the inputs, broadcast against them.

        Args:
            x: Smoothed inputs.

        Returns:
            From the stored ranges of the running timestep, or else measured on each token.
        """
        if self.form.num_ranges:
            scale, zero = self.timesteps.pick(self.ranges.float(), len(x))
            shape = (-1, *[1] * (x.ndim - 1))
            return scale.view(shape), zero.round().view(shape)
        dims = self.measured_dims(x)
        low = x.amin(dims, keepdim=True).float().clamp(max=0)
        high = x.amax(dims, keepdim=True).float().clamp(min=0)
        scale = ((high - low) / (2**self.form.activation_bits - 1)).clamp(min=1e-30)
        return scale, (-low / scale).round()

    def measured_dims(self, x: Tensor) -> list[int]:
        """Return the axes that share one measured range.

        Args:
            x: Inputs.
        """
        raise NotImplementedError

    def computes_in_integers(self, x: Tensor) -> bool:
        """Return whether the product of these inputs runs on int8 units.

        Args:
            x: Inputs.
        """
        raise NotImplementedError

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the float product, channels sorted.

        Args:
            x: Inputs on their grid.
            weight: Sorted float weight.
        """
        raise NotImplementedError

    def multiply_integers(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Return the product of codes, scaled, channels sorted.

        Args:
            x: Smoothed inputs.
            scale: Their scale.
            zero: Their zero point.
        """
        raise NotImplementedError

    def multiply_branch(self, x: Tensor) -> Tensor:
        """Return what the float branch adds.

        Args:
            x: Smoothed inputs.
        """
        raise NotImplementedError

    def sorted_weight(self) -> Float[Tensor, "o ..."]:
        """Return the float weight, channels sorted by width, smoothing still in it."""
        rows = self.sorted_codes().float()
        zero = spread(self.sorted_zero(), rows.shape[1])
        return ((rows - zero) * spread(self.scale.float(), rows.shape[1])).view(self.shape)

    def sorted_codes(self) -> UInt8[Tensor, "o i"]:
        """Return the codes, channels sorted by width."""
        width = num_inputs(self.shape)
        parts, start = [], 0
        for bits, count in self.form.widths.items():
            end = start + packed_bytes(count * width, bits)
            parts.append(unpack(self.codes[start:end], bits, count * width).view(count, width))
            start = end
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def sorted_zero(self) -> Float[Tensor, "o g"]:
        """Return the zero points, channels sorted by width."""
        blocks = self.zero.split(list(self.form.widths.values()))
        parts = [
            byte_to_zero(block, bits) for block, bits in zip(blocks, self.form.widths, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def store(self, weight: Float[Tensor, "o i"], grid: Grid) -> None:
        """Take over a smoothed weight, flattened to rows, on its grid.

        Args:
            weight: Rows in the layer's own order.
            grid: Their grids; widths as the layer's format counts them.
        """
        order = torch.argsort(grid.widths, stable=True)
        codes = quantize(weight, grid)[order]
        blocks = codes.split(list(self.form.widths.values()))
        self.codes = torch.cat(
            [pack(b.flatten(), bits) for b, bits in zip(blocks, self.form.widths, strict=True)]
        )
        self.scale = grid.scale[order].to(torch.bfloat16)
        self.zero = zero_to_byte(grid.zero, grid.widths[:, None])[order]
        if len(self.form.widths) > 1:
            narrowest = min(self.form.widths)
            self.widths = pack((grid.widths - narrowest).to(torch.uint8), 2)
        self.restore_places()

    def set_smoothing(self, factors: Float[Tensor, " i"]) -> None:
        """Take over what inputs are divided by.

        Args:
            factors: One per input channel, on the stored scale.
        """
        self.smoothing = smoothing_to_byte(factors)

    def restore_places(self) -> None:
        """Find where each channel stands from the stored widths, after loading.

        Raises:
            InputError: If the widths are not those that the format counts.
        """
        if len(self.form.widths) == 1:
            return
        widths = unpack(self.widths, 2, self.shape[0]).long() + min(self.form.widths)
        found = torch.bincount(widths, minlength=9)
        if any(int(found[bits]) != self.form.widths.get(bits, 0) for bits in range(9)):
            raise InputError("the stored widths of its channels say otherwise", param="widths")
        places = torch.argsort(torch.argsort(widths, stable=True))
        self.places = places.to(torch.int16 if self.shape[0] < 2**15 else torch.int32)

    def checksum(self) -> int:
        """Return the CRC-32 of the format and the stored tensors, the bias aside."""
        crc = zlib.crc32(json.dumps(self.form.stated(), sort_keys=True).encode())
        for name in tensor_shapes(self.shape, self.form):
            data = self._buffers[name]
            assert data is not None
            flat = data.detach().cpu().contiguous().view(torch.uint8)
            crc = zlib.crc32(flat.numpy().tobytes(), crc)
        return crc

    def _smoothing_of(self, x: Tensor) -> Tensor:
        factors = byte_to_smoothing(self.smoothing)
        return factors.view(-1, *[1] * (-1 - self.channel_dim)).to(x.device)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, FBT002
        # Networks are cast to other dtypes; what a file holds keeps the dtype of the file.
        kept = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for name, before in kept.items():
            after = self._buffers[name]
            if before is not None and after is not None and after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        return self


class PackedLinear(PackedLayer):
    """A packed `nn.Linear`; takes the same arguments as every packed layer."""

    @property
    def in_features(self) -> int:
        """Input width."""
        return self.shape[1]

    @property
    def out_features(self) -> int:
        """Output width."""
        return self.shape[0]

    def measured_dims(self, x: Tensor) -> list[int]:  # noqa: ARG002
        """Every token has its own range."""
        return [-1]

    def computes_in_integers(self, x: Tensor) -> bool:
        """Where they are fast: on CPUs with byte units, on CUDA for sizes that its kernel takes."""
        if self.scale.shape[1] > 1:  # one scale per row
            return False
        if x.device.type == "cpu":  # without them, torch takes many times what floats take
            return has_byte_units()
        rows = x.numel() // x.shape[-1]
        fits = self.in_features % 8 == 0 and self.out_features % 8 == 0
        return x.device.type == "cuda" and fits and rows >= _SMALLEST_CUDA_ROWS

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """A float product."""
        return F.linear(x, weight)

    def multiply_integers(
        self, x: Float[Tensor, "*b i"], scale: Tensor, zero: Tensor
    ) -> Float[Tensor, "*b o"]:
        """Sum codes in int32, then take zero points out: sum (a - za)(b - zb), term by term."""
        flat = x.flatten(0, -2)
        scale, zero = (per_row(part, x) for part in (scale, zero))
        codes = signed_inputs(flat, scale, zero, self.form.activation_bits)
        weight, weight_zero = self._signed_codes()
        # A row and a column of ones sum up the codes of the other side.
        left, right = (F.pad(part, (0, 0, 0, 1), value=1) for part in (codes, weight))
        product = torch._int_mm(left, right.T)  # noqa: SLF001
        width = self.out_features
        sums, weight_sums = product[:-1, width:].float(), product[-1, :width].float()
        factor = self.scale[:, 0].float()
        zero = (zero - input_offset(self.form.activation_bits)).expand(len(flat), 1)
        left = torch.cat([-sums, -zero], dim=1)
        right = torch.stack([weight_zero, weight_sums - self.in_features * weight_zero]) * factor
        # In one order for one range and for several, or a row would depend on its company.
        total = (product[:-1, :width] * factor).addmm_(left, right).mul_(scale)
        return total.view(*x.shape[:-1], width).to(x.dtype)

    def multiply_branch(self, x: Tensor) -> Tensor:
        """Two thin products."""
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))

    def _signed_codes(self) -> tuple[Int[Tensor, "o i"], Float[Tensor, " o"]]:
        codes, zero = self.sorted_codes(), self.sorted_zero()[:, 0]
        if MAX_BITS in self.form.widths:  # eight bits are the last block, and do not fit int8
            start = self.out_features - self.form.widths[MAX_BITS]
            codes = torch.cat([codes[:start], codes[start:] - INT8_OFFSET])  # wraps
            zero[start:] -= INT8_OFFSET
        return codes.view(torch.int8), zero


class PackedConv2d(PackedLayer):
    """A packed `nn.Conv2d`.

    Args:
        shape: Shape of the float weight.
        form: How it is stored.
        timesteps: Where the running pass is.
        source: The convolution whose stride, padding and groups it takes over.
    """

    channel_dim = -3

    def __init__(
        self, shape: Sequence[int], form: LayerFormat, timesteps: Timesteps, *, source: nn.Conv2d
    ) -> None:
        super().__init__(shape, form, timesteps, has_bias=source.bias is not None)
        self.stride, self.padding = source.stride, source.padding
        self.dilation, self.groups = source.dilation, source.groups

    def measured_dims(self, x: Tensor) -> list[int]:
        """Every picture has its own range."""
        return list(range(1, x.ndim))

    def computes_in_integers(self, x: Tensor) -> bool:  # noqa: ARG002
        """Never: no kernel that torch has takes int8 pictures."""
        return False

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """A float convolution."""
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def multiply_branch(self, x: Tensor) -> Tensor:
        """A thin convolution, then a mix of its channels."""
        down = self.down.to(x.dtype).view(-1, *self.shape[1:])
        thin = F.conv2d(x, down, None, self.stride, self.padding, self.dilation)
        return F.conv2d(thin, self.up.to(x.dtype)[:, :, None, None])
