"""The float twin of a packed layer, for tests and for doubts."""

import torch
from torch import Tensor, nn

from quant.layers import PackedLayer
from quant.numerics import fake_quantize


class FloatTwin(nn.Module):
    """The slow, plain form of a packed layer: float weight, inputs rounded in float.

    Args:
        packed: The layer to stand beside.
    """

    weight: Tensor

    def __init__(self, packed: PackedLayer) -> None:
        super().__init__()
        self._packed = packed
        self.register_buffer("weight", packed.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the packed layer does, computed in float throughout.

        Args:
            x: Inputs.
        """
        packed, weight = self._packed, self.weight
        smoothed = packed.smoothed(x)
        if packed.form.rank:
            branch = (packed.up.float() @ packed.down.float()).view(packed.shape)
        else:
            branch = torch.zeros(())
        factors = packed._smoothing_of(x) if packed.form.smoothed else torch.ones(())  # noqa: SLF001
        rounded = smoothed
        if packed.form.activation_bits:
            scale, zero = packed.input_grid(smoothed)
            levels = torch.tensor(2.0**packed.form.activation_bits - 1)
            rounded = fake_quantize(smoothed, scale, zero, levels)
        output = packed.multiply(rounded, weight * factors - branch)
        if packed.form.rank:
            output = output + packed.multiply_branch(smoothed)
        if packed.bias is None:
            return output
        return output + packed.bias.view(-1, *[1] * (-1 - packed.channel_dim))
