"""Torch's own attention beside plain products in blocks, and beside xformers on CUDA, by shape.

    python -m benchmarks.bench_attention --output benchmarks/results/performance.json
    python -m benchmarks.bench_attention --device cuda --output benchmarks/results/performance.json

All take turns on the same numbers; the figure is the median. `pipelines/attend.py` chooses by it.
xformers takes part on CUDA where it is installed (`pip install 'fewstroke[gpu]'`).
"""

import json
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.nn import functional as F

from benchmarks.command import run_command
from benchmarks.roofline import significant, timed
from core.devices import limit_threads, usable_device
from core.progress import progress
from evaluation.record import check_output, merge
from pipelines.attend import attend_in_blocks

SHAPES = {
    "shipped, itself": (6, 32, 64, 64),
    "shipped at 256 tokens, itself": (6, 32, 256, 256),
    "XL at 256 tokens, itself": (16, 72, 256, 256),
    "XL at 256 tokens, 120 words": (16, 72, 256, 120),
    "XL at 1024 tokens, itself": (16, 72, 1024, 1024),
    "XL at 1024 tokens, 120 words": (16, 72, 1024, 120),
    "XL at 4096 tokens, 120 words": (16, 72, 4096, 120),
}
"""Heads, channels of a head, queries, keys."""

FORMATS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    repeats: Annotated[int, typer.Option(min=1, help="Calls of each that count.")] = 15,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all cores.")] = None,
    device: Annotated[str, typer.Option(help="Where to attend: cpu or cuda.")] = "cpu",
) -> None:
    """Measure attention by shape, number format and way."""
    check_output(output)
    limit_threads(threads)
    figures = measure(repeats, device)
    merge(output, figures, module="benchmarks.bench_attention", device=device)
    print(json.dumps(figures, indent=1))


def measure(repeats: int, device_name: str = "cpu") -> dict[str, Mapping[str, float]]:
    """Time all ways at every shape.

    Args:
        repeats: Calls of each that count.
        device_name: "cpu" or "cuda"; a device that is not there is a ConfigError.

    Returns:
        attention_ms_torch_*, attention_ms_blocks_*, attention_ms_xformers_*: Milliseconds by shape,
        by number format; the device stands behind it where it is not the CPU.
    """
    device = usable_device(device_name)
    place = "" if device.type == "cpu" else f"_{device.type}"
    found: dict[str, dict[str, float]] = {}
    with progress("Attention", total=len(FORMATS) * len(SHAPES), unit="shapes") as report:
        for name, dtype in FORMATS.items():
            for shape, sizes in SHAPES.items():
                for way, milliseconds in _compared(sizes, dtype, repeats, device).items():
                    key = f"attention_ms_{way}_{name}{place}"
                    found.setdefault(key, {})[shape] = milliseconds
                report.advance()
    return dict(found)


@torch.inference_mode()
def _compared(
    sizes: tuple[int, int, int, int], dtype: torch.dtype, repeats: int, device: torch.device
) -> dict[str, float]:
    heads, width, num_queries, num_keys = sizes
    lengths = (num_queries, num_keys, num_keys)
    drawn = [torch.randn(1, n, heads, width, dtype=dtype, device=device) for n in lengths]
    # They lie in memory as projections leave them.
    query, key, value = (part.transpose(1, 2) for part in drawn)
    ways: dict[str, Callable[[], object]] = {
        "torch": partial(F.scaled_dot_product_attention, query, key, value),
        "blocks": partial(attend_in_blocks, query, key, value),
    }
    if device.type == "cuda" and find_spec("xformers"):
        from xformers.ops import memory_efficient_attention

        ways["xformers"] = partial(memory_efficient_attention, *drawn)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, call in ways.items():
            seconds[way] += timed(partial(_finished, call, device), 1)
    return {way: significant(1e3 * statistics.median(each)) for way, each in seconds.items()}


def _finished(call: Callable[[], object], device: torch.device) -> None:
    call()
    if device.type == "cuda":  # it returns before the GPU has
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    run_command(main)
