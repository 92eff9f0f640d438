"""How far a step is from what the machine can do: its work, its bytes, and the machine's peaks."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch

from pipelines.text_to_image import TextToImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRODUCT = 2048
"""Rows and columns of the products that tell the peaks."""


def step_work(painter: TextToImage, cells: int) -> float:
    """Count the floating-point operations of one pass, as torch counts them.

    Args:
        painter: Its float network, or what its codes stand for.
        cells: Latent cells along the edge of the picture.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from pipelines.accelerate.graphs import RowTransformer, words_of_layers
    from pipelines.accelerate.packed_graphs import plain_layer
    from pipelines.conditioning import stack_words

    network = painter.parts.transformer
    row = RowTransformer(
        network, painter.info.latent_factor, exchange=partial(plain_layer, code_bits=None)
    )
    with torch.no_grad():
        words = painter.networks.encode(torch.ones(1, 12, dtype=torch.long))
        stacked = stack_words([words])
        latent = torch.zeros(1, network.config["in_channels"], cells, cells)
        heard = words_of_layers(network, stacked.vectors)
        with FlopCounterMode(display=False) as counter:
            row(latent, torch.tensor([500.0]), heard, stacked.mask.float())
    return float(counter.get_total_flops())


def peaks(repeats: int = 5) -> dict[str, float]:
    """Measure what this machine reaches at best: matrix products and copies.

    Args:
        repeats: Products that count; the fastest is the peak.

    Returns:
        peak_gflop_s_*: Billions of operations a second by number format, two a multiplication.
        peak_gb_s: Gigabytes a second of a copy, read and written.
    """
    shape = (PRODUCT, PRODUCT)
    wide, half = torch.randn(shape), torch.randn(shape).bfloat16()
    bytes_ = torch.randint(-127, 128, shape, dtype=torch.int8)
    source = torch.empty(2**28, dtype=torch.uint8)
    target = torch.empty_like(source)
    products: dict[str, Callable[[], object]] = {
        "float32": lambda: wide @ wide,
        "bfloat16": lambda: half @ half,
        "int8": lambda: torch._int_mm(bytes_, bytes_),  # noqa: SLF001 - torch's int8 product
    }
    found = {
        f"peak_gflop_s_{name}": significant(2 * PRODUCT**3 / fastest(call, repeats) / 1e9)
        for name, call in products.items()
    }
    copy_s = fastest(lambda: target.copy_(source), repeats)
    return {**found, "peak_gb_s": significant(2 * source.numel() / copy_s / 1e9)}


def significant(number: float) -> float:
    """Round to four digits, so that a slow machine's figures are not zero.

    Args:
        number: Any.
    """
    return float(f"{number:.4g}")


def fastest(call: Callable[[], object], repeats: int) -> float:
    """Return the least time of several calls, after one that warms up.

    Args:
        call: What is timed.
        repeats: How often.
    """
    return min(timed(call, repeats))


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Return the time of every call, after one that warms up.

    Args:
        call: What is timed.
        repeats: How often.
    """
    call()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return found


def draw_roofline(axis: "Axes", figures: Mapping[str, object]) -> None:
    """Draw one step of each size below the machine's roof.

    Left of a roof's edge a step waits for its weights, right of it for arithmetic; what is missing
    up to the roof is neither: small products, norms, softmax, and threads that meet.

    Args:
        axis: Where to draw.
        figures: `cost_s_by_tokens`, `cost_gflop_by_tokens`, `cost_weights_mb` and the peaks.
    """
    seconds, work = figures["cost_s_by_tokens"], figures["cost_gflop_by_tokens"]
    assert isinstance(seconds, Mapping)
    assert isinstance(work, Mapping)
    weights_gb = float(str(figures["cost_weights_mb"])) / 1e3
    intensities = [gflop / weights_gb for gflop in work.values()]
    ends = [1.0, 3 * max(intensities)]
    bandwidth = float(str(figures["peak_gb_s"]))
    for name in ("int8", "bfloat16", "float32"):
        peak = float(str(figures[f"peak_gflop_s_{name}"]))
        places = sorted([*ends, peak / bandwidth])
        axis.plot(places, [min(peak, x * bandwidth) for x in places], label=f"roof, {name}")
    reached = [work[tokens] / seconds[tokens] for tokens in work]
    axis.plot(intensities, reached, "o", color="black", label="one step")
    for tokens, x, y in zip(work, intensities, reached, strict=True):
        axis.annotate(f"{tokens}", (x, y), textcoords="offset points", xytext=(4, -10))
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="operations for each byte of weights",
        ylabel="billions of operations a second",
    )
    axis.legend(loc="lower right", fontsize="small")
