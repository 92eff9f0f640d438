"""What each layer hears while a float model samples. Read `calibrate` first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import InputError, UnsupportedError
from quant.precision import Role
from quant.timesteps import watch_timestep

ROWS_PER_CALL = 32
SAME = 1e-6


@dataclass(kw_only=True, slots=True)
class Heard:
    """What one layer heard.

    Attributes:
        kind: "linear" or "conv".
        role: What the layer is, as its inputs and its place tell.
        order: When it was first called, from 0; -1 for never.
        low: Smallest input per timestep and channel.
        high: Largest input per timestep and channel.
        samples: A sample of its inputs, one flat row per output position.
    """

    kind: str
    role: Role = "unused"
    order: int = -1
    low: dict[float, Tensor] = field(default_factory=dict)
    high: dict[float, Tensor] = field(default_factory=dict)
    samples: list[Tensor] = field(default_factory=list)

    @property
    def peaks(self) -> Float[Tensor, " i"]:
        """Largest absolute input of each channel, over all timesteps."""
        low, high = torch.stack(list(self.low.values())), torch.stack(list(self.high.values()))
        return torch.maximum(-low, high).amax(dim=0).clamp(min=0)

    @property
    def rows(self) -> Float[Tensor, "m i"]:
        """The sample as one matrix."""
        return torch.cat(self.samples)

    def ranges(
        self, timesteps: tuple[float, ...], factors: Float[Tensor, " i"] | None
    ) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
        """Return the range of the inputs at each timestep, once where time changes nothing.

        Args:
            timesteps: In the order that is wanted.
            factors: What each channel is divided by first.
        """
        scale = 1 if factors is None else factors
        low = torch.stack([(self.low[t] / scale).amin() for t in timesteps])
        high = torch.stack([(self.high[t] / scale).amax() for t in timesteps])
        slack = SAME * torch.maximum(low.abs().amax(), high.abs().amax())
        if (low - low[0]).abs().amax() <= slack and (high - high[0]).abs().amax() <= slack:
            return low[:1], high[:1]
        return low, high


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What all layers heard.

    Attributes:
        layers: By layer name.
        timesteps: Timesteps that were met, falling.
    """

    layers: Mapping[str, Heard]
    timesteps: tuple[float, ...]

    @property
    def output_layer(self) -> str:
        """Name of the output projection: the layer that is called last."""
        return max(self.layers, key=lambda name: self.layers[name].order)


def calibrate(
    transformer: nn.Module,
    run: Callable[[], object],
    generator: torch.Generator,
    *,
    num_rows: int = 512,
) -> Calibration:
    """Listen to every linear and convolution layer while something samples.

    Args:
        transformer: The float network.
        run: Samples with it.
        generator: Chooses which inputs are kept.
        num_rows: Inputs kept per layer, spread over all calls.

    Returns:
        What each layer heard, with its role.

    Raises:
        InputError: If num_rows is below 2.
        UnsupportedError: If the network was never called.
    """
    if num_rows < 2:
        raise InputError(f"num_rows is {num_rows}: at least 2 inputs a layer.", param="num_rows")
    listener = _Listener(generator, num_rows)
    handles = [watch_timestep(transformer, listener.set_timestep)]
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            listener.layers[name] = Heard(
                kind="conv" if isinstance(module, nn.Conv2d) else "linear"
            )
            handles.append(module.register_forward_pre_hook(listener.hook(name)))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    if not listener.timesteps:
        raise UnsupportedError(
            f"{type(transformer).__name__} was not called once with a timestep while calibrating."
        )
    for name, heard in listener.layers.items():
        if heard.order >= 0:
            heard.role = _role(transformer, name, heard)
    return Calibration(
        layers=listener.layers, timesteps=tuple(sorted(listener.timesteps, reverse=True))
    )


class _Listener:
    def __init__(self, generator: torch.Generator, num_rows: int) -> None:
        self.layers: dict[str, Heard] = {}
        self.timesteps: set[float] = set()
        self._generator, self._num_rows = generator, num_rows
        self._now: float | None = None
        self._num_calls = 0

    def set_timestep(self, timestep: Tensor) -> None:
        times = timestep.detach().float().reshape(-1)
        if not bool((times == times[0]).all()):
            raise UnsupportedError(
                "Calibration met different timesteps in one pass: sample rows at equal steps."
            )
        self._now = float(times[0])
        self.timesteps.add(self._now)

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def listen(module: nn.Module, args: tuple[Any, ...]) -> None:
            heard, x = self.layers[name], args[0].detach().float()
            if self._now is None:
                return  # called outside of the network: not part of a step
            if heard.order < 0:
                heard.order, self._num_calls = self._num_calls, self._num_calls + 1
                heard.role = "vector" if x.ndim == 2 else "outer"
            channel = 1 if heard.kind == "conv" else x.ndim - 1
            dims = [d for d in range(x.ndim) if d != channel]
            low, high, now = x.amin(dims).cpu(), x.amax(dims).cpu(), self._now
            heard.low[now] = torch.minimum(heard.low.get(now, low), low)
            heard.high[now] = torch.maximum(heard.high.get(now, high), high)
            self._keep(heard, _positions(module, x))

        return listen

    def _keep(self, heard: Heard, rows: Tensor) -> None:
        chosen = torch.randperm(len(rows), generator=self._generator)[:ROWS_PER_CALL]
        heard.samples.append(rows[chosen.to(rows.device)].cpu())
        if sum(map(len, heard.samples)) > 2 * self._num_rows:
            everything = heard.rows
            kept = torch.randperm(len(everything), generator=self._generator)[: self._num_rows]
            heard.samples = [everything[kept]]


def _positions(module: nn.Module, x: Tensor) -> Tensor:
    """Return one flat row per output position."""
    if not isinstance(module, nn.Conv2d):
        return x.reshape(-1, x.shape[-1])
    if module.groups > 1 or isinstance(module.padding, str):
        return x.new_zeros(0, module.weight[0].numel())
    patches = F.unfold(x, module.weight.shape[2:], module.dilation, module.padding, module.stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def _role(transformer: nn.Module, name: str, heard: Heard) -> Role:
    # Blocks are what stands in a list right below the network; diffusers builds all of them so.
    if heard.role == "vector":
        return "vector"
    root = getattr(transformer, name.partition(".")[0], None)
    return "block" if isinstance(root, nn.ModuleList) and len(root) > 0 else "outer"
