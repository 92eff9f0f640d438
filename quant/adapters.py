"""QALoRA: layers that compute on their grid while low-rank factors and the grid itself learn.

A student layer answers exactly as the packed layer that it becomes. What learns stands in an
`Adapter` of its own, so that checkpoints hold nothing else.

Steps are scale-aware through the parameters, not through the optimizer: every parameter starts at
its neutral value and acts times a factor, so one learning rate moves each as far as it should.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from quant.layers import PackedLayer
from quant.manifest import Manifest
from quant.numerics import (
    Grid,
    dequantize,
    fake_quantize,
    quantize,
    round_through,
    spread,
    stored_scale,
    stored_zero,
)
from quant.plan import LayerPlan, largest_part
from quant.precision import Precision
from quant.store import packed_layer
from quant.timesteps import Timesteps, watch_timestep

REFERENCE_RATE = 5e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """How far one optimizer step moves what learns, at the reference learning rate of 5e-4.

    Attributes:
        factors: A step of the low-rank factors, in scales of the layer's weight: four times what is
            published, where tuning is many times as long.
        grid: Relative step of a weight's scale and zero point.
        inputs: Relative step of the scales and zero points of inputs.
    """

    factors: float = 1 / 625
    grid: float = 5e-5
    inputs: float = 5e-4


class Adapter(nn.Module):
    """What learns in one layer.

    Args:
        plan: How the layer starts.
        rank: Rank of the low-rank factors.
        rates: How far steps go.
        start: "zero" leaves the weight as it is; "error" starts at the rounding error's largest
            part, which the grid then need not hold.
        generator: Draws the first factor.

    Source: He et al., "EfficientDM", arXiv 2310.03270, section 3.2; rates as in MPQ-DM's code.
        "error": Feng et al., "MPQ-DMv2", arXiv 2507.04290.
    """

    first_down: Tensor
    first_up: Tensor

    def __init__(
        self,
        plan: LayerPlan,
        *,
        rank: int,
        rates: Rates,
        start: Literal["zero", "error"],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        rows, width = plan.rows.shape
        rank = min(rank, rows, width)
        mean_scale = float(plan.grid.scale.mean())
        self.factor_gain = mean_scale * rates.factors / REFERENCE_RATE
        self.grid_gain = rates.grid / REFERENCE_RATE
        self.input_gain = rates.inputs / REFERENCE_RATE
        if start == "error":
            error = plan.rows - dequantize(quantize(plan.rows, plan.grid), plan.grid)
            down, up = largest_part(error, rank)
            if plan.factors is not None:  # factors act on the weight as it was before smoothing
                down = down / plan.factors.repeat_interleave(width // len(plan.factors))
        else:
            bound = 1 / math.sqrt(width)  # what Kaiming's uniform start comes to for a matrix
            down = torch.empty(rank, width).uniform_(-bound, bound, generator=generator)
            up = torch.zeros(rows, rank)
        self.register_buffer("first_down", down)
        self.register_buffer("first_up", up)
        self.down, self.up = (
            nn.Parameter(torch.zeros(rank, width)),
            nn.Parameter(torch.zeros(rows, rank)),
        )
        self.scale = nn.Parameter(torch.zeros_like(plan.grid.scale))
        self.zero = nn.Parameter(torch.zeros_like(plan.grid.zero))
        self.input_scale = nn.Parameter(torch.zeros_like(plan.input_scale))
        self.input_zero = nn.Parameter(torch.zeros_like(plan.input_zero))

    def change(self) -> Float[Tensor, "o i"]:
        """Return what is added to the weight."""
        down = self.first_down + self.factor_gain * self.down
        up = self.first_up + self.factor_gain * self.up
        return up @ down


class StudentLayer(nn.Module):
    """A float layer that rounds as its packed form will, with gradients.

    Args:
        source: The float layer.
        plan: How it will be stored.
        timesteps: Where the running pass is.
        adapter: What learns; None for nothing.
    """

    rows: Tensor
    first_scale: Tensor
    first_zero: Tensor
    widths: Tensor
    factors: Tensor | None
    first_input_scale: Tensor
    first_input_zero: Tensor
    bias: Tensor | None

    def __init__(
        self,
        source: nn.Linear | nn.Conv2d,
        plan: LayerPlan,
        timesteps: Timesteps,
        adapter: Adapter | None,
    ) -> None:
        super().__init__()
        self._source, self.plan, self._timesteps = [source], plan, timesteps
        self.adapter = adapter
        self._held: Tensor | None = None
        self.register_buffer("rows", plan.rows)
        self.register_buffer("first_scale", plan.grid.scale)
        self.register_buffer("first_zero", plan.grid.zero)
        self.register_buffer("widths", plan.grid.widths)
        self.register_buffer("factors", plan.factors)
        self.register_buffer("first_input_scale", plan.input_scale)
        self.register_buffer("first_input_zero", plan.input_zero)
        bias = source.bias
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return what the packed layer will.

        Args:
            x: Inputs.
        """
        source = self._source[0]
        assert self.plan.branch is None, "methods with a float branch do not learn"
        is_conv = isinstance(source, nn.Conv2d)
        if self.factors is not None:
            x = x / self.factors.view(-1, *[1, 1] * is_conv)
        if self.plan.activation_bits:
            x = self._rounded(x)
        weight = self.rounded_weight() if self._held is None else self._held
        if isinstance(source, nn.Conv2d):
            return F.conv2d(
                x, weight, self.bias, source.stride, source.padding, source.dilation, source.groups
            )
        return F.linear(x, weight, self.bias)

    def rounded_weight(self) -> Float[Tensor, "o i ..."]:
        """Return the smoothed weight on its grid, in the shape of the float layer's."""
        grid = self.grid()
        rows = self.float_rows()
        scale, zero = (spread(part, rows.shape[1]) for part in (grid.scale, grid.zero))
        rows = fake_quantize(rows, scale, zero, grid.levels)
        return rows.view(self._source[0].weight.shape)

    def hold(self, *, on: bool) -> None:
        """Round the weight once for several passes, or again in each.

        Args:
            on: Whether the weight of now is held.
        """
        self._held = self.rounded_weight() if on else None

    @property
    def weight(self) -> Tensor:
        """The float layer's weight, for code that asks for its dtype."""
        return self._source[0].weight

    def float_rows(self) -> Float[Tensor, "o i"]:
        """Return the smoothed weight with what was learned, before it is rounded."""
        if self.adapter is None:
            return self.rows
        change = self.adapter.change()
        if self.factors is not None:
            change = change * self.factors.repeat_interleave(change.shape[1] // len(self.factors))
        return self.rows + change

    def grid(self) -> Grid:
        """Return the grid as it is now, on numbers that a file holds."""
        if self.adapter is None:
            return Grid(scale=self.first_scale, zero=self.first_zero, widths=self.widths)
        gain, bits = self.adapter.grid_gain, self.widths[:, None]
        scale = self.first_scale * (1 + gain * self.adapter.scale)
        zero = self.first_zero + gain * self.adapter.zero
        kept = stored_scale(scale.detach()), stored_zero(zero.detach(), bits)
        return Grid(
            scale=scale + (kept[0] - scale).detach(),
            zero=zero + (kept[1] - zero).detach(),
            widths=self.widths,
        )

    def input_table(self) -> Float[Tensor, "2 t"]:
        """Return scale and zero point of the inputs per timestep, on numbers that a file holds."""
        scale, zero = self.first_input_scale, self.first_input_zero
        if self.adapter is not None:
            levels = 2.0**self.plan.activation_bits - 1
            scale = scale * (1 + self.adapter.input_gain * self.adapter.input_scale)
            scale = scale + (stored_scale(scale.detach()) - scale).detach()
            shift = self.adapter.input_gain * levels * self.adapter.input_zero
            zero = round_through(zero + shift).clamp(0, levels)
        return torch.stack([scale, zero])

    def to_packed(self) -> PackedLayer:
        """Return the packed layer that answers as this one does."""
        plan, source = self.plan, self._source[0]
        timesteps = self._timesteps
        packed = packed_layer(source, plan.form, timesteps)
        with torch.no_grad():
            if plan.factors is not None:
                packed.set_smoothing(plan.factors)
            if plan.form.num_ranges:
                packed.ranges = self.input_table().cpu().bfloat16()
            if plan.branch is not None:
                packed.down, packed.up = (part.bfloat16() for part in plan.branch)
            if packed.bias is not None and source.bias is not None:
                packed.bias.copy_(source.bias)
            grid = self.grid()
            packed.store(
                self.float_rows().cpu(),
                Grid(scale=grid.scale.cpu(), zero=grid.zero.cpu(), widths=grid.widths.cpu()),
            )
        packed.form = replace(packed.form, checksum=packed.checksum())
        return packed.eval()

    def _rounded(self, x: Tensor) -> Tensor:
        levels = torch.tensor(2.0**self.plan.activation_bits - 1, device=x.device)
        if not len(self.first_input_scale):
            dims = [-1] if isinstance(self._source[0], nn.Linear) else list(range(1, x.ndim))
            low = x.detach().amin(dims, keepdim=True).clamp(max=0)
            high = x.detach().amax(dims, keepdim=True).clamp(min=0)
            scale = ((high - low) / levels).clamp(min=1e-30)
            return fake_quantize(x, scale, (-low / scale).round(), levels)
        scale, zero = self._timesteps.pick(self.input_table(), len(x))
        shape = (-1, *[1] * (x.ndim - 1))
        return fake_quantize(x, scale.view(shape), zero.view(shape), levels)


@contextmanager
def held_weights(student: nn.Module) -> Iterator[None]:
    """Round every weight once for all passes inside the block; gradients add up as without.

    Args:
        student: A network with rounding layers.
    """
    layers = [module for module in student.modules() if isinstance(module, StudentLayer)]
    for layer in layers:
        layer.hold(on=True)
    try:
        yield
    finally:
        for layer in layers:
            layer.hold(on=False)


def to_student(
    transformer: nn.Module,
    plans: Mapping[str, LayerPlan],
    timesteps: Timesteps,
    adapters: Mapping[str, Adapter],
) -> dict[str, StudentLayer]:
    """Replace the planned layers of a network by layers that round.

    Args:
        transformer: A copy of the float network; changed in place.
        plans: By layer name.
        timesteps: Shared by all layers; told the timestep of every pass from now on.
        adapters: By layer name; layers without one only round.

    Returns:
        The new layers by name.
    """
    students = {}
    for name, plan in plans.items():
        source = transformer.get_submodule(name)
        assert isinstance(source, nn.Linear | nn.Conv2d)
        students[name] = StudentLayer(source, plan, timesteps, adapters.get(name))
        transformer.set_submodule(name, students[name])
    watch_timestep(transformer, timesteps.set)
    return students


def pack_in_turn(student: nn.Module, *, method: str, precision: Precision) -> Manifest:
    """Replace the rounding layers of a student by the packed layers that they become.

    Args:
        student: What `to_student` made; changed in place.
        method: Name of the method, for the manifest.
        precision: What was asked for, for the manifest.

    Returns:
        What the network now says about itself.
    """
    layers = {n: m for n, m in student.named_modules() if isinstance(m, StudentLayer)}
    left = [n for n, m in student.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    others = sum(w.numel() for n, w in student.named_parameters() if ".adapter." not in n)
    num_parameters = others + sum(
        layer.rows.numel() + (0 if layer.bias is None else len(layer.bias))
        for layer in layers.values()
    )
    table: tuple[float, ...] = ()
    forms = {}
    for name, layer in layers.items():
        packed = layer.to_packed()
        table, forms[name] = packed.timesteps.table, packed.form
        student.set_submodule(name, packed)
    is_static = any(form.num_ranges > 1 for form in forms.values())
    return Manifest(
        method=method,
        precision=str(precision),
        layers=forms,
        timesteps=table if is_static else (),
        num_parameters=num_parameters,
        float_layers=tuple(left),
    )
