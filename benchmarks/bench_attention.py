"""Torch's own attention beside plain products in blocks, on the CPU, by shape.

    python -m benchmarks.bench_attention --output benchmarks/results/performance.json

Both take turns on the same numbers; the figure is the median. `pipelines/attend.py` chooses by it.
"""

import json
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from benchmarks.roofline import significant, timed
from core.devices import limit_threads
from core.progress import progress
from evaluation.record import merge
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
) -> None:
    """Measure attention by shape, number format and way."""
    limit_threads(threads)
    figures = measure(repeats)
    merge(output, figures, module="benchmarks.bench_attention")
    print(json.dumps(figures, indent=1))


def measure(repeats: int) -> dict[str, Mapping[str, float]]:
    """Time both ways at every shape.

    Args:
        repeats: Calls of each that count.

    Returns:
        attention_ms_torch_*, attention_ms_blocks_*: Milliseconds by shape, by number format.
    """
    found: dict[str, dict[str, float]] = {}
    with progress("Attention", total=len(FORMATS) * len(SHAPES), unit="shapes") as report:
        for name, dtype in FORMATS.items():
            for shape, sizes in SHAPES.items():
                for way, milliseconds in _compared(sizes, dtype, repeats).items():
                    found.setdefault(f"attention_ms_{way}_{name}", {})[shape] = milliseconds
                report.advance()
    return dict(found)


@torch.inference_mode()
def _compared(
    sizes: tuple[int, int, int, int], dtype: torch.dtype, repeats: int
) -> dict[str, float]:
    heads, width, num_queries, num_keys = sizes

    def drawn(length: int) -> Tensor:  # heads lie side by side, as a projection leaves them
        return torch.randn(1, length, heads, width, dtype=dtype).transpose(1, 2)

    parts = drawn(num_queries), drawn(num_keys), drawn(num_keys)
    ways: Mapping[str, Callable[[], object]] = {
        "torch": partial(F.scaled_dot_product_attention, *parts),
        "blocks": partial(attend_in_blocks, *parts),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, call in ways.items():
            seconds[way] += timed(call, 1)
    return {way: significant(1e3 * statistics.median(each)) for way, each in seconds.items()}


if __name__ == "__main__":
    typer.run(main)
