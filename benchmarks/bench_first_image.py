"""How long a stranger waits for the first picture, and what the server holds in memory.

    python -m benchmarks.bench_first_image --output benchmarks/results/teacher.json

Starts `fewstroke serve` as a process, waits for `/readyz`, and asks through the openai client.
"""

import json
import statistics
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import psutil
import typer

from benchmarks.command import run_command
from cli.demo import PROMPT, READY_WITHIN_S, ask
from cli.server_process import running_server
from evaluation.record import check_output, merge

MEGABYTE = 1e6


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[
        str | None, typer.Option(help="Diffusers folder or hub name.", show_default="shipped")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Variant of the model.")] = None,
    num_images: Annotated[int, typer.Option(min=1, help="Pictures for the steady time.")] = 10,
) -> None:
    """Measure a server from its start to its steady state."""
    check_output(output)
    figures = measure(model, variant, num_images)
    merge(output, figures, module="benchmarks.bench_first_image")
    print(json.dumps(figures, indent=1))


def measure(model: str | None, variant: str | None, num_images: int) -> dict[str, float]:
    """Start a server and time what a caller sees.

    Args:
        model: What it serves; None for the shipped model.
        variant: Which variant of it.
        num_images: Pictures, one request each, over which the steady time is taken.

    Returns:
        start_to_ready_s: From the start of the process to a green `/readyz`, warm-up included.
        first_image_s: From the start of the process to the first picture at the client.
        image_s: Median of one request for one picture afterwards.
        resident_mb: What the server then holds in memory, in 10^6 bytes.
    """
    import_module("openai")  # half a second that is not the server's
    with TemporaryDirectory() as folder:
        picture, log_file = Path(folder) / "picture.png", Path(folder) / "server.log"
        started = time.perf_counter()
        with running_server(port=0, log_file=log_file, model=model, variant=variant) as server:
            server.wait_until_ready(READY_WITHIN_S)
            ready_s = time.perf_counter() - started
            ask(server, PROMPT, picture)
            first_image_s = time.perf_counter() - started
            seconds = []
            for _ in range(num_images):
                asked = time.perf_counter()
                ask(server, PROMPT, picture)
                seconds.append(time.perf_counter() - asked)
            resident_bytes = psutil.Process(server.process.pid).memory_info().rss
    return {
        "start_to_ready_s": round(ready_s, 2),
        "first_image_s": round(first_image_s, 2),
        "image_s": round(statistics.median(seconds), 3),
        "resident_mb": round(resident_bytes / MEGABYTE),
    }


if __name__ == "__main__":
    run_command(main)
