"""One step of a network of PixArt-XL/2's shape, weights at random, in float and in few bits."""

import statistics
import time
from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from diffusers import PixArtTransformer2DModel
from torch import nn

from core.progress import progress
from core.seeding import numpy_generator
from pipelines.accelerate.choose import COARSE
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.openvino_networks import OpenvinoNetworks, Rounding
from pipelines.components import Components
from pipelines.store import open_checkpoint
from quant.manifest import LayerFormat
from quant.numerics import min_max_grid
from quant.precision import MAX_BITS
from quant.store import packed_layer, storage
from quant.timesteps import Timesteps

XL = ("xl_speedup_fp32", "xl_speedup_bf16", "xl_speedup_fp32_static", "xl_weight_ratio")
WIDTHS = (2, 3, 4)
NUM_WORDS = 120

Step = Callable[[], torch.Tensor]


def measure_xl(
    num_rounds: int, *, num_layers: int = 28, num_heads: int = 16, edge: int = 32
) -> dict[str, float | None]:
    """Time one unguided step, in turns.

    Args:
        num_rounds: Rounds that count, at least 1.
        num_layers: Blocks; 28 is XL.
        num_heads: Heads; 16 is XL.
        edge: Latent cells along an edge; 32 is 256 tokens.

    Returns:
        xl_speedup_fp32: Seconds of float32 eager over ours with mixed 2/3/4-bit weights.
        xl_speedup_bf16: Seconds of bfloat16 eager over ours.
        xl_speedup_fp32_static: The first with stored input ranges and weights of eight bits.
        xl_weight_ratio: Bytes of our weights inside the blocks over float32's.
    """
    network = random_xl(num_layers, num_heads, edge)
    packed = in_few_bits(network, {})
    steps = xl_steps(network, packed, edge)
    rng = numpy_generator(0, "order")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with progress("XL", total=(num_rounds + 1) * len(steps), unit="steps") as report:
        for number in range(num_rounds + 1):
            for name in rng.permutation(list(steps)):
                started = time.perf_counter()
                steps[str(name)]()
                if number:
                    seconds[str(name)].append(time.perf_counter() - started)
                report.advance()
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    found = storage(packed)
    ratio = found["resident_bytes"] / (4 * found["num_weights"])
    return {
        "xl_speedup_fp32": round(middle["fp32"] / middle["ours"], 3),
        "xl_speedup_bf16": round(middle["bf16"] / middle["ours"], 3),
        "xl_speedup_fp32_static": round(middle["fp32"] / middle["ours_static"], 3),
        "xl_weight_ratio": round(ratio, 4),
        **{f"xl_step_s_{name}": round(each, 4) for name, each in middle.items()},
    }


def random_xl(num_layers: int, num_heads: int, edge: int) -> PixArtTransformer2DModel:
    """Return a network of PixArt-XL/2's shape.

    Args:
        num_layers: Blocks.
        num_heads: Heads, of 72 channels each.
        edge: Latent cells along an edge.
    """
    torch.manual_seed(0)
    return PixArtTransformer2DModel(
        num_attention_heads=num_heads,
        attention_head_dim=72,
        in_channels=4,
        out_channels=8,
        num_layers=num_layers,
        cross_attention_dim=72 * num_heads,
        caption_channels=4096,
        sample_size=edge,
        patch_size=2,
    ).eval()


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
        small.store(layer.weight.detach(), min_max_grid(layer.weight.detach(), widths))
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


@torch.no_grad()
def xl_steps(
    network: PixArtTransformer2DModel, packed: PixArtTransformer2DModel, edge: int
) -> Mapping[str, Step]:
    """Return one step each: float32, bfloat16, and ours in float32, in few bits, and from ranges.

    Args:
        network: The float network.
        packed: The same in few bits.
        edge: Latent cells along an edge.
    """
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, edge, edge, generator=generator)
    words = torch.randn(NUM_WORDS, 4096, generator=generator)
    times = torch.tensor([500])

    def eager(each: PixArtTransformer2DModel, dtype: torch.dtype) -> Step:
        mask = torch.ones(1, NUM_WORDS, dtype=dtype)

        @torch.inference_mode()
        def step() -> torch.Tensor:
            return each(
                latents.to(dtype),
                encoder_hidden_states=words.to(dtype)[None],
                encoder_attention_mask=mask,
                timestep=times,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                return_dict=False,
            )[0]

        return step

    def compiled(each: PixArtTransformer2DModel, *, codes: bool = True) -> Step:
        networks = OpenvinoNetworks(
            _parts(each),
            8,
            execution=Execution("openvino", tolerance=COARSE),
            revision="xl",
            shelf=None,
            rounding=Rounding(codes=codes),
        )

        @torch.inference_mode()
        def step() -> torch.Tensor:
            found = networks.denoise(latents, times, [words], [None])
            assert not networks.execution.fallbacks, networks.execution.fallbacks
            return found

        return step

    plain = eager(network, torch.float32)
    ranges = input_ranges(network, plain)
    return {
        "fp32": plain,
        "bf16": eager(deepcopy(network).to(torch.bfloat16), torch.bfloat16),
        "ours_float32": compiled(network),
        "ours": compiled(packed, codes=False),
        "ours_static": compiled(in_few_bits(network, ranges)),
    }


def _parts(transformer: PixArtTransformer2DModel) -> Components:
    """Stand a network beside the shipped model's other parts, which no step asks."""
    from dataclasses import replace

    from app.settings import shipped_model
    from pipelines.components import load_components

    shipped = load_components(open_checkpoint(shipped_model()), device="cpu", dtype="float32")
    return replace(shipped, transformer=transformer)
