"""One step of a network of PixArt-XL/2's shape, weights at random: ours beside stock and peers."""

import base64
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace

import numpy as np
import psutil
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from app.settings import shipped_model
from benchmarks.peer_process import PythonProcess
from benchmarks.peers.xl import drawn_call, eager_step, random_xl, release_memory
from benchmarks.roofline import significant
from core.errors import ConfigError
from core.progress import progress
from core.seeding import numpy_generator
from pipelines.accelerate.choose import COARSE
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.openvino_networks import OpenvinoNetworks, Rounding
from pipelines.components import Components, load_components
from pipelines.store import open_checkpoint
from quant.manifest import LayerFormat
from quant.numerics import min_max_grid
from quant.precision import MAX_BITS
from quant.store import packed_layer, storage
from quant.timesteps import Timesteps

XL = (
    *("xl_speedup_fp32", "xl_speedup_bf16", "xl_speedup_sdnq", "xl_speedup_fp32_static"),
    "xl_weight_ratio",
)
EDGES = {256: 32, 1024: 64}
"""Latent cells along an edge by image tokens."""
PEERS: Mapping[str, float] = {
    "ort_int8": 4.4,
    "openvino_int8_static": 4.5,
    "openvino_int8_dynamic": 1.9,
    "sdnq_uint4": 1.7,
    "torchao_int8": 1.2,
    "quanto_int8": 1.2,
}
"""Memory that preparing takes at its peak, in float32 networks; the largest are prepared first."""
STOCK: Mapping[str, float] = {"fp32": 0.0, "bf16": 1.5}
OURS: Mapping[str, float] = {"ours": 1.5, "ours_static": 1.5, "ours_float32": 2.0}
RUNNERS: Mapping[str, float] = {**PEERS, **STOCK, **OURS}
FEW_BITS = ("ours", "ours_static", "sdnq_uint4")
"""Who holds weights at random in so few bits that a distance from float would tell nothing."""
MODULE = "benchmarks.peers.xl"
WIDTHS = (2, 3, 4)
MEGABYTE = 1e6

Step = Callable[[], tuple[float, Tensor]]
"""Runs one step, and returns its seconds and its output."""


def measure_xl(
    num_rounds: int,
    *,
    who: Collection[str] = RUNNERS,
    num_layers: int = 28,
    num_heads: int = 16,
    edge: int = 32,
) -> dict[str, float | None]:
    """Time one unguided step, in turns.

    Args:
        num_rounds: Rounds that count, at least 1.
        who: Who takes part.
        num_layers: Blocks; 28 is XL.
        num_heads: Heads; 16 is XL.
        edge: Latent cells along an edge; 32 is 256 tokens.

    Returns:
        xl_step_s_*: Median seconds of everybody, and quartiles (`_low`, `_high`) if there are
            rounds enough; None for who could not be prepared, and why is printed.
        xl_speedup_fp32: Seconds of float32 eager over ours with mixed 2/3/4-bit weights; likewise
            `_bf16` of bfloat16 eager, `_sdnq` of SDNQ's uint4; `_fp32_static` is of ours with
            stored input ranges and weights of eight bits.
        xl_weight_ratio: Bytes of our weights inside the blocks over float32's.
        xl_weights_mb_*: 10^6 bytes of everybody's weights.
        xl_distance_*: Relative distance from the float32 output, of those of eight bits or more.
    """
    with xl_steps(who, num_layers, num_heads, edge) as (steps, sizes):
        seconds, outputs = _in_turns(steps, num_rounds)
    # Whatever is not measured now is null, too: nothing of an earlier run stands beside it.
    figures: dict[str, float | None] = {
        key: None
        for name in who
        for key in (
            *(f"xl_step_s_{name}{end}" for end in ("", "_low", "_high")),
            *(f"xl_weights_mb_{name}", f"xl_distance_{name}"),
        )
    }
    for name, each in seconds.items():
        figures[f"xl_step_s_{name}"] = round(statistics.median(each), 4)
        if len(each) >= 4:
            low, _, high = statistics.quantiles(each, n=4)
            figures[f"xl_step_s_{name}_low"] = round(low, 4)
            figures[f"xl_step_s_{name}_high"] = round(high, 4)
    figures |= {f"xl_{name}": round(size, 4) for name, size in sizes.items()}
    return figures | _speedups(figures) | _distances(outputs)


def _in_turns(
    steps: Mapping[str, Step], num_rounds: int
) -> tuple[Mapping[str, Sequence[float]], Mapping[str, Tensor]]:
    rng = numpy_generator(0, "order")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    outputs: dict[str, Tensor] = {}
    with progress("XL", total=(num_rounds + 1) * len(steps), unit="steps") as report:
        for number in range(num_rounds + 1):
            for name in map(str, rng.permutation(list(steps))):
                took, outputs[name] = steps[name]()
                if number:  # the first is everybody's warm-up
                    seconds[name].append(took)
                report.advance()
    return seconds, outputs


def _speedups(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    pairs = {
        "fp32": ("fp32", "ours"),
        "bf16": ("bf16", "ours"),
        "sdnq": ("sdnq_uint4", "ours"),
        "fp32_static": ("fp32", "ours_static"),
    }
    found: dict[str, float | None] = {}
    for name, (other, ours) in pairs.items():
        if not {f"xl_step_s_{other}", f"xl_step_s_{ours}"} <= figures.keys():
            continue  # not asked for: what an earlier run found stays
        theirs, own = (figures[f"xl_step_s_{each}"] for each in (other, ours))
        found[f"xl_speedup_{name}"] = round(theirs / own, 3) if theirs and own else None
    return found


def _distances(outputs: Mapping[str, Tensor]) -> dict[str, float]:
    exact = outputs.get("fp32")
    if exact is None:
        return {}
    return {
        f"xl_distance_{name}": significant(float((output - exact).norm() / exact.norm()))
        for name, output in outputs.items()
        if name not in FEW_BITS
    }


def in_few_bits(
    network: PixArtTransformer2DModel, ranges: Mapping[str, tuple[float, float]]
) -> PixArtTransformer2DModel:
    """Return a copy whose blocks hold 2, 3 and 4 bits a channel, a third each; inputs of 8 bits.

    Args:
        network: A float network.
        ranges: Least and largest input of each layer, to be stored; an empty one measures inputs
            while running.
    """
    packed = deepcopy(network)
    for name, layer in list(packed.named_modules()):
        if not _is_in_block(name, layer):
            continue
        rows = len(layer.weight)
        counts = {bits: rows // len(WIDTHS) for bits in WIDTHS}
        counts[WIDTHS[-1]] += rows - sum(counts.values())
        form = LayerFormat(widths=counts, activation_bits=MAX_BITS, num_ranges=len(ranges) and 1)
        widths = torch.cat([torch.full((count,), bits) for bits, count in counts.items()])
        small = packed_layer(layer, form, Timesteps(()))
        small.store(
            layer.weight.detach(), min_max_grid(layer.weight.detach(), widths, whole_zero=True)
        )
        small.bias = layer.bias
        if ranges:
            low, high = ranges[name]
            scale = (high - low) / (2**MAX_BITS - 1)
            small.ranges = torch.tensor([[scale], [round(-low / scale)]])
        packed.set_submodule(name, small)
    return packed


def input_ranges(
    network: PixArtTransformer2DModel, step: Callable[[], object]
) -> dict[str, tuple[float, float]]:
    """Listen to a float step.

    Args:
        network: A float network.
        step: Runs it.

    Returns:
        Least and largest input of every layer inside the blocks, zero between them.
    """
    found: dict[str, tuple[float, float]] = {}

    def listen(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def note(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            found[name] = min(float(inputs[0].min()), 0.0), max(float(inputs[0].max()), 0.0)

        return note

    layers = [(name, layer) for name, layer in network.named_modules() if _is_in_block(name, layer)]
    hooks = [layer.register_forward_pre_hook(listen(name)) for name, layer in layers]
    step()
    for hook in hooks:
        hook.remove()
    return found


def _is_in_block(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and "transformer_blocks." in name


@contextmanager
def xl_steps(
    who: Collection[str], num_layers: int, num_heads: int, edge: int
) -> Iterator[tuple[Mapping[str, Step], Mapping[str, float]]]:
    """Prepare everybody, one after another, for that takes more memory than running.

    Args:
        who: Names.
        num_layers: Blocks.
        num_heads: Heads.
        edge: Latent cells along an edge.

    Yields:
        One step of each who could be prepared, and what weights take: `weights_mb_*` and
        `weight_ratio`. Processes end afterwards.
    """
    steps: dict[str, Step] = {}
    sizes: dict[str, float] = {}
    with ExitStack() as stack:
        with progress("Preparing", total=len(who), unit="networks") as report:
            network: PixArtTransformer2DModel | None = None
            for name in (each for each in RUNNERS if each in who):
                report.advance(0, note=name)
                try:
                    is_first = name not in PEERS and network is None  # ours share a float network
                    _check_room(RUNNERS[name] + is_first, num_layers, num_heads, edge)
                    if name in PEERS:
                        peer = XlProcess(name, num_layers, num_heads, edge)
                        stack.callback(peer.close)
                        steps[name], found = peer.step, {f"weights_mb_{name}": peer.weights_mb}
                    else:
                        network = network or random_xl(num_layers, num_heads, edge)
                        steps[name], found = _own_step(name, network, edge)
                        release_memory()
                    sizes |= found
                except ConfigError as error:
                    print(f"{name} is not measured at {edge} cells: {error}")
                report.advance()
        yield steps, sizes


def _check_room(num_networks: float, num_layers: int, num_heads: int, edge: int) -> None:
    """Look for memory before it is taken: without enough of it the machine would stand still.

    Raises:
        ConfigError: If preparing takes more than is free.
    """
    with torch.device("meta"):
        num_weights = sum(
            part.numel() for part in random_xl(num_layers, num_heads, edge).parameters()
        )
    needed, free = 4 * num_weights * num_networks, psutil.virtual_memory().available
    if needed > free:
        raise ConfigError(
            f"preparing it takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free: leave "
            "others out (--xl-who)."
        )


class XlProcess(PythonProcess):
    """A peer that has made few bits of the network.

    Args:
        name: One of `PEERS`.
        num_layers: Blocks.
        num_heads: Heads.
        edge: Latent cells along an edge.
    """

    def __init__(self, name: str, num_layers: int, num_heads: int, edge: int) -> None:
        words = (name, num_layers, num_heads, edge, torch.get_num_threads())
        super().__init__(MODULE, list(map(str, words)))
        self._shape = (1, -1, edge, edge)

    def step(self) -> tuple[float, Tensor]:
        """Run one step; the seconds are its own, without the pipe."""
        answer = self.ask({})
        values = np.frombuffer(base64.b64decode(answer["output"]), np.float32)
        return float(answer["seconds"]), torch.from_numpy(values.copy()).reshape(self._shape)


@torch.no_grad()
def _own_step(
    name: str, network: PixArtTransformer2DModel, edge: int
) -> tuple[Step, dict[str, float]]:
    call = drawn_call(edge)
    plain = eager_step(network, call, torch.float32)
    if name in STOCK:
        dtype = torch.float32 if name == "fp32" else torch.bfloat16
        own = network if name == "fp32" else deepcopy(network).to(dtype)
        return _timed(eager_step(own, call, dtype)), {f"weights_mb_{name}": _weights_mb(own)}
    if name == "ours_float32":
        return _timed(_compiled(network, edge)), {f"weights_mb_{name}": _weights_mb(network)}
    packed = in_few_bits(network, input_ranges(network, plain) if name == "ours_static" else {})
    # Stored ranges belong to codes that are expanded to bytes; without, codes stay packed.
    step = _compiled(packed, edge, codes=name == "ours_static")
    found = storage(packed)
    ratio = found["resident_bytes"] / (4 * found["num_weights"])
    sizes = {f"weights_mb_{name}": _weights_mb(packed)}
    return _timed(step), sizes | ({"weight_ratio": ratio} if name == "ours" else {})


def _compiled(
    network: PixArtTransformer2DModel, edge: int, *, codes: bool = True
) -> Callable[[], Tensor]:
    networks = OpenvinoNetworks(
        _parts(network),
        8,
        execution=Execution("openvino", tolerance=COARSE),
        revision="xl",
        shelf=None,
        rounding=Rounding(codes=codes),
    )
    call = drawn_call(edge)
    words = call["words"][0]

    @torch.inference_mode()
    def step() -> Tensor:
        found = networks.denoise(call["latent"], call["timestep"].long(), [words], [None])
        if networks.execution.fallbacks:
            raise ConfigError(f"plain torch stood in: {dict(networks.execution.fallbacks)}")
        return found

    step()  # compiles, which takes far more memory than what is left
    return step


def _timed(step: Callable[[], Tensor]) -> Step:
    def timed() -> tuple[float, Tensor]:
        started = time.perf_counter()
        output = step()
        return time.perf_counter() - started, output

    return timed


def _weights_mb(network: nn.Module) -> float:
    return sum(part.nbytes for part in network.state_dict().values()) / MEGABYTE


def _parts(transformer: PixArtTransformer2DModel) -> Components:
    """Stand a network beside the shipped model's other parts, which no step asks."""
    shipped = load_components(open_checkpoint(shipped_model()), device="cpu", dtype="float32")
    return replace(shipped, transformer=transformer)
