"""From what a layer heard to how it will be stored: widths, smoothing, ranges, grids."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError, UnknownNameError
from quant.calibrate import Calibration, Heard
from quant.kurtosis import (
    QUIET_SHARE,
    RELEASED_SHARES,
    SHARES,
    Allocation,
    Choice,
    allocate,
    smoothing,
    spend,
)
from quant.manifest import LayerFormat
from quant.numerics import (
    ERROR_POWER,
    SHRINK_STEP,
    SHRINK_STEPS,
    Grid,
    fake_quantize,
    min_max_grid,
    range_grid,
    search_grid,
)
from quant.precision import MAX_BITS, MIN_BITS, Policy, Precision, Role

MAX_SEARCHED_INPUTS = 65536


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """How a method stores layers, before anything is learned.

    Attributes:
        grid: "minmax" takes the whole range of each row, "search" the share with the least error.
        whole_zero: Round zero points of weights to whole codes, as published quantizers do.
        smooth: Move large input channels into the weights: "never", "always", or "helpful": in
            layers whose outputs come nearer by it.
        allocation: "uniform", "omq" (bits move inside a layer) or "budget" (between layers too).
        released_search: Search OMQ's shares and smooth as the published code does: two shares,
            plain grids, quiet channels as quiet as they were heard.
        plus: Another tenth of the channels at one bit more.
        activations: "static" (one range per timestep), "dynamic" (one per token) or "float".
        group_size: Inputs that share one weight scale; 0 is the row.
        branch_rank: Rank of a float branch that takes the largest part of the weight; 0 is none.
    """

    grid: Literal["minmax", "search"] = "search"
    whole_zero: bool = False
    smooth: Literal["never", "always", "helpful"] = "never"
    allocation: Literal["uniform", "omq", "budget"] = "uniform"
    released_search: bool = False
    plus: bool = False
    activations: Literal["static", "dynamic", "float"] = "static"
    group_size: int = 0
    branch_rank: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPlan:
    """How one layer will be stored.

    Attributes:
        role: What the layer is.
        rows: What is put on the grid: the smoothed weight, flattened, less the float branch.
        grid: Its grids; every row's width stands in it.
        factors: What inputs are divided by; None for nothing.
        input_scale: Scale of the inputs, one per timestep or one for ever; empty for per token.
        input_zero: Their zero points.
        activation_bits: Bits of the inputs; 0 leaves them in float.
        group_size: Inputs that share one weight scale; 0 is the row.
        branch: Two thin factors, first the one that inputs meet; None for none.
        allocation: How OMQ chose; None where nothing was searched.
    """

    role: Role
    rows: Float[Tensor, "o i"]
    grid: Grid
    factors: Float[Tensor, " c"] | None
    input_scale: Float[Tensor, " t"]
    input_zero: Float[Tensor, " t"]
    activation_bits: int
    group_size: int
    branch: tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]] | None
    allocation: Allocation | None

    @property
    def form(self) -> LayerFormat:
        """The format without a checksum, which only stored tensors have."""
        counts = torch.bincount(self.grid.widths, minlength=MAX_BITS + 1).tolist()
        return LayerFormat(
            widths={bits: count for bits, count in enumerate(counts) if count},
            group_size=self.group_size if self.grid.scale.shape[1] > 1 else 0,
            smoothed=self.factors is not None,
            activation_bits=self.activation_bits,
            num_ranges=len(self.input_scale),
            rank=0 if self.branch is None else len(self.branch[0]),
        )


def plan_layers(
    transformer: nn.Module,
    calibration: Calibration,
    precision: Precision,
    policy: Policy,
    storage: Storage,
    *,
    known: Mapping[str, Allocation] | None = None,
    on_layer: Callable[[str, LayerPlan], None] | None = None,
) -> dict[str, LayerPlan]:
    """Plan every layer that the policy does not leave in float.

    Args:
        transformer: The float network.
        calibration: What its layers heard.
        precision: Asked bits.
        policy: What gets other bits, or none.
        storage: How the method stores.
        known: Allocations that an earlier run found, which are not searched again.
        on_layer: Told of every layer that is planned.

    Returns:
        Plans by layer name.

    Raises:
        InputError: If the policy leaves nothing to quantize.
    """
    _check_names(storage)
    asked = {
        name: policy.bits(name, heard.role, precision.weights)
        for name, heard in calibration.layers.items()
        if heard.order >= 0
    }
    widths = {name: bits for name, bits in asked.items() if bits is not None}
    if not widths:
        raise InputError("The policy leaves every layer in float: relax it.", param="keep")
    allocations = dict(known or {})
    if storage.allocation == "budget":
        allocations |= _spend_on_blocks(transformer, calibration, widths, precision, storage)
    plans = {}
    for name, bits in widths.items():
        layer, heard = transformer.get_submodule(name), calibration.layers[name]
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        # Layers held at a width of their own hear as many bits, and never fewer than asked.
        heard_bits = precision.activations
        if heard_bits is not None and heard.role != "block":
            heard_bits = max(heard_bits, bits)
        planner = _Planner(layer, heard, storage, calibration.timesteps, (bits, heard_bits))
        plans[name] = planner.plan(allocations.get(name))
        if on_layer is not None:
            on_layer(name, plans[name])
    return plans


class _Planner:
    """One layer, from its float weight to its plan."""

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        heard: Heard,
        storage: Storage,
        timesteps: tuple[float, ...],
        bits: tuple[int, int | None],
    ) -> None:
        self.layer, self.heard, self.storage, self.timesteps = layer, heard, storage, timesteps
        self.bits, asked_heard = bits
        self.bits_heard = 0 if storage.activations == "float" else asked_heard or 0
        self.is_grouped = isinstance(layer, nn.Conv2d) and layer.groups > 1
        self.factors: Tensor | None = None
        self.rows, self.inputs = layer.weight.detach().float().cpu().flatten(1), heard.rows
        if storage.smooth != "never" and not self.is_grouped:
            self._smooth()

    def _smooth(self) -> None:
        weight = self.layer.weight.detach().float().cpu()
        by_channel = weight.transpose(0, 1).flatten(1).T
        quiet = 0.0 if self.storage.released_search else QUIET_SHARE
        factors = smoothing(self.heard.peaks, by_channel, quiet_share=quiet)
        spread = factors.repeat_interleave(weight[0, 0].numel())
        rows, inputs = self.rows * spread, self.inputs / spread
        if self.storage.smooth == "helpful":
            before, after = (
                allocate(*pair, self.bits, activation_bits=self.bits_heard or None, shares=(0.0,))
                for pair in ((self.rows, self.inputs), (rows, inputs))
            )
            if before.error <= after.error:
                return
        self.rows, self.inputs, self.factors = rows, inputs, factors

    @property
    def moves_bits(self) -> bool:
        """Whether bits may move between this layer's channels."""
        is_block = self.heard.role == "block"
        return self.storage.allocation != "uniform" and is_block and not self.is_grouped

    def allocation(self, bits: int) -> Allocation:
        released = self.storage.released_search
        return allocate(
            self.rows,
            self.inputs,
            bits,
            activation_bits=self.bits_heard or None,
            shares=RELEASED_SHARES if released else SHARES,
            plus=self.storage.plus,
            released=released,
        )

    def plan(self, found: Allocation | None) -> LayerPlan:
        if self.moves_bits and found is None:
            found = self.allocation(self.bits)
        widths = torch.full((len(self.rows),), self.bits) if found is None else found.widths
        rows, branch = self.rows, None
        if self.storage.branch_rank and self.heard.role == "block" and not self.is_grouped:
            branch = largest_part(rows, self.storage.branch_rank)
            rows = rows - branch[1] @ branch[0]
        scale, zero = self._input_grid()
        return LayerPlan(
            role=self.heard.role,
            rows=rows,
            grid=self._grid(rows, widths),
            factors=self.factors,
            input_scale=scale,
            input_zero=zero,
            activation_bits=self.bits_heard,
            group_size=self.storage.group_size,
            branch=branch,
            allocation=found,
        )

    def _grid(self, rows: Tensor, widths: Tensor) -> Grid:
        whole = self.storage.whole_zero
        if self.storage.grid == "minmax":
            size = self.storage.group_size
            return min_max_grid(rows, widths, group_size=size, whole_zero=whole)
        return search_grid(rows, widths, whole_zero=whole)

    def _input_grid(self) -> tuple[Tensor, Tensor]:
        if not self.bits_heard or self.storage.activations != "static":
            return torch.zeros(0), torch.zeros(0)
        low, high = self.heard.ranges(self.timesteps, self.factors)
        bits = torch.tensor(self.bits_heard)
        share = 1.0
        if self.storage.grid == "search":
            share = clipping_share(self.inputs, low.min(), high.max(), self.bits_heard)
        return range_grid(low * share, high * share, bits, whole_zero=True)


def clipping_share(
    inputs: Float[Tensor, "m i"], low: Float[Tensor, ""], high: Float[Tensor, ""], bits: int
) -> float:
    """Return the share of a range on which inputs lose least, by |error|**2.4.

    Args:
        inputs: A sample.
        low: Smallest input.
        high: Largest input.
        bits: Their width.

    Returns:
        One of 80 shares, 1.00 down to 0.21.
    """
    values = inputs.flatten()
    values = values[:: max(1, len(values) // MAX_SEARCHED_INPUTS)]
    width = torch.tensor(bits)
    levels = torch.tensor(2.0**bits - 1)
    best, least = 1.0, float("inf")
    for step in range(SHRINK_STEPS):
        share = 1.0 - SHRINK_STEP * step
        scale, zero = range_grid(low * share, high * share, width, whole_zero=True)
        rounded = fake_quantize(values, scale, zero, levels)
        error = float((rounded - values).abs().pow(ERROR_POWER).mean())
        if error < least:
            best, least = share, error
    return best


def largest_part(
    rows: Float[Tensor, "o i"], rank: int
) -> tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]:
    """Return the two factors of the best approximation of a rank, as stored.

    Args:
        rows: A matrix.
        rank: At least 1; cut to the matrix's own.

    Source: Li et al., "SVDQuant", arXiv 2411.05007, equation 5.
    """
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    rank = min(rank, len(values))
    root = values[:rank].sqrt()
    down, up = root[:, None] * right[:rank], left[:, :rank] * root
    return down.bfloat16().float(), up.bfloat16().float()


def _spend_on_blocks(
    transformer: nn.Module,
    calibration: Calibration,
    widths: Mapping[str, int],
    precision: Precision,
    storage: Storage,
) -> dict[str, Allocation]:
    """Let layers share bits: what one can spare, another may use."""
    choices: dict[str, list[Choice]] = {}
    budget = 0
    for name, bits in widths.items():
        layer, heard = transformer.get_submodule(name), calibration.layers[name]
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        asked = (bits, precision.activations)
        planner = _Planner(layer, heard, storage, calibration.timesteps, asked)
        if not planner.moves_bits:
            continue
        budget += bits * planner.rows.numel()
        choices[name] = []
        for width in range(max(MIN_BITS, bits - 1), min(MAX_BITS, bits + 1) + 1):
            found = planner.allocation(width)
            cost = int(found.widths.sum()) * planner.rows.shape[1]
            loss = found.error / max(found.power, 1e-30)
            choices[name].append(Choice(bits=cost, error=loss, label=found))
    taken = spend(choices, budget)
    labels = {name: choice.label for name, choice in taken.items()}
    return {name: label for name, label in labels.items() if isinstance(label, Allocation)}


def _check_names(storage: Storage) -> None:
    for field, known in (
        ("grid", ("minmax", "search")),
        ("allocation", ("uniform", "omq", "budget")),
        ("activations", ("static", "dynamic", "float")),
        ("smooth", ("never", "always", "helpful")),
    ):
        if getattr(storage, field) not in known:
            raise UnknownNameError(field, getattr(storage, field), known, param=f"set.{field}")
