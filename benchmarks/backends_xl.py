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
from pipelines.accelerate.choose import ROUNDED
from pipelines.accelerate.execution import Execution
from pipelines.accelerate.openvino_networks import OpenvinoNetworks, Rounding
from pipelines.components import Components
from pipelines.store import open_checkpoint
from quant.numerics import min_max_grid
from quant.precision import LayerFormat
from quant.store import packed_layer, storage
from quant.timesteps import Timesteps

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
        xl_weight_ratio: Bytes of our weights inside the blocks over float32's.
    """
    network = random_xl(num_layers, num_heads, edge)
    packed = in_few_bits(network)
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


def in_few_bits(network: PixArtTransformer2DModel) -> PixArtTransformer2DModel:
    """Return a copy whose blocks hold 2, 3 and 4 bits a channel, a third each; inputs of 8 bits.

    Args:
        network: A float network.
    """
    packed = deepcopy(network)
    for name, layer in list(packed.named_modules()):
        if not isinstance(layer, nn.Linear) or "transformer_blocks." not in name:
            continue
        rows = len(layer.weight)
        counts = {bits: rows // len(WIDTHS) for bits in WIDTHS}
        counts[WIDTHS[-1]] += rows - sum(counts.values())
        form = LayerFormat(widths=counts, activation_bits=8)
        widths = torch.cat([torch.full((count,), bits) for bits, count in counts.items()])
        small = packed_layer(layer, form, Timesteps(()))
        small.store(layer.weight.detach(), min_max_grid(layer.weight.detach(), widths))
        small.bias = layer.bias
        packed.set_submodule(name, small)
    return packed


@torch.no_grad()
def xl_steps(
    network: PixArtTransformer2DModel, packed: PixArtTransformer2DModel, edge: int
) -> Mapping[str, Step]:
    """Return one step each: float32, bfloat16, and ours in float32 and in few bits.

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

    def compiled(each: PixArtTransformer2DModel) -> Step:
        networks = OpenvinoNetworks(
            _parts(each),
            8,
            execution=Execution("openvino", tolerance=ROUNDED),
            revision="xl",
            shelf=None,
            rounding=Rounding(),
        )

        @torch.inference_mode()
        def step() -> torch.Tensor:
            found = networks.denoise(latents, times, [words], [None])
            assert not networks.execution.fallbacks, networks.execution.fallbacks
            return found

        return step

    return {
        "fp32": eager(network, torch.float32),
        "bf16": eager(deepcopy(network).to(torch.bfloat16), torch.bfloat16),
        "ours_float32": compiled(network),
        "ours": compiled(packed),
    }


def _parts(transformer: PixArtTransformer2DModel) -> Components:
    """Stand a network beside the shipped model's other parts, which no step asks."""
    from dataclasses import replace

    from app.settings import shipped_model
    from pipelines.components import load_components

    shipped = load_components(open_checkpoint(shipped_model()), device="cpu", dtype="float32")
    return replace(shipped, transformer=transformer)
