"""How fast the service is under load, beside the server one would write first.

    python -m benchmarks.bench_serving --output benchmarks/results/serving.json

Parts, all by default (`--part` chooses):

    load        requests a second and waiting times at several numbers of clients, ours and a
                FastAPI server around a plain diffusers pipeline, with a lock and with threads
                as in diffusers' example, in turns
    engine      what a tick costs beyond its forward pass; whether company changes a picture
    overload    ten times as many clients as places: are refusals honest, does memory hold
    disconnect  sockets that are closed at any moment, and whether their work stops
    fuzz        requests that nobody would write, by schema and by raw bytes
    start       from the start of the process to the first picture, and resident memory
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from unittest.mock import patch

import psutil
import typer

from benchmarks import bench_first_image
from benchmarks.command import run_command
from benchmarks.figures_of_tests import ROOT, run_tests
from benchmarks.load_client import Seen, press
from benchmarks.peers.pipeline_server import Design
from benchmarks.serving_disconnects import measure_disconnects
from benchmarks.serving_engine import differences, tick_overhead
from benchmarks.serving_overload import measure_overload
from cli.server_process import ServerProcess, free_port, running_server
from evaluation.record import check_output, merge

READY_WITHIN_S = 300.0
OVERLOAD_PLACES = 6
OVERLOAD_S = 180.0
KEYS = (
    *("rps_16_ours", "rps_16_lock", "rps_1_ours", "rps_1_lock", "p99_16_ours_s", "p99_16_lock_s"),
    *("tick_overhead", "disconnect_stopped", "disconnect_tried", "fuzz_calls", "fuzz_5xx"),
    *("invariance_max_abs", "start_to_first_image_s", "resident_mb"),
)
"""The headline figures; null until a command has measured them."""

Figures = dict[str, float]


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    model: Annotated[Path, typer.Option(help="Diffusers folder.")] = Path(
        "checkpoints/emoji-scenes"
    ),
    part: Annotated[list[str] | None, typer.Option(help="Measure only this; repeatable.")] = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients, with commas.")] = "1,4,16,64",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server.")] = 3,
    requests: Annotated[
        int, typer.Option(min=1, help="Requests of a turn, at least one a client.")
    ] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a picture.")] = 4,
    guidance: Annotated[float, typer.Option(min=1, help="Guidance scale; 1 is none.")] = 1.0,
    bfloat16: Annotated[
        bool, typer.Option(help="Press ours in bfloat16 as well; `ours_bf16` in the keys.")
    ] = False,
    disconnects: Annotated[int, typer.Option(min=1, help="Sockets to close.")] = 100,
    fuzz_examples: Annotated[int, typer.Option(min=1, help="Calls by schema, of a kind.")] = 60,
    fuzz_raw: Annotated[int, typer.Option(min=1, help="Raw requests.")] = 5000,
) -> None:
    """Measure the service; each part is written as soon as it is done."""
    check_output(output)
    load = Load(rounds=rounds, requests=requests, steps=steps, guidance=guidance, bfloat16=bfloat16)
    levels = [int(level) for level in clients.split(",")]
    parts: dict[str, Callable[[], Iterable[Figures]]] = {
        "load": lambda: measure_load(model, levels, load),
        "engine": lambda: [_measure_engine(model)],
        "overload": lambda: [_measure_overload(model, load)],
        "disconnect": lambda: [measure_disconnects(model, disconnects)],
        "fuzz": lambda: [_measure_fuzz(fuzz_examples, fuzz_raw)],
        "start": lambda: [_measure_start(model)],
    }
    for name in part or parts:
        for figures in parts[name]():
            known = json.loads(output.read_text("utf-8")) if output.exists() else {}
            nulls = {key: None for key in KEYS if key not in known}
            merge(output, {**nulls, **figures}, module="benchmarks.bench_serving")
            print(json.dumps(figures, indent=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What each server is pressed with.

    Attributes:
        rounds: Turns of each server at each number of clients.
        requests: Requests of a turn, at least one a client.
        steps: Steps of a picture.
        guidance: Guidance scale of a picture.
        bfloat16: Whether ours is pressed in that number format as well.
    """

    rounds: int
    requests: int
    steps: int
    guidance: float
    bfloat16: bool = False

    def press(self, server: ServerProcess, num_clients: int) -> Seen:
        """Press one server for one turn.

        Args:
            server: The server.
            num_clients: Clients at once.

        Returns:
            What they saw.
        """
        return asyncio.run(
            press(
                server.base_url,
                num_clients=num_clients,
                num_requests=max(num_clients, self.requests),
                steps=self.steps,
                guidance=self.guidance,
            )
        )


def measure_load(model: Path, levels: Sequence[int], load: Load) -> Iterator[Figures]:
    """Press ours and the peer in turns.

    Args:
        model: What both serve.
        levels: Numbers of clients.
        load: What they ask.

    Yields:
        After each level: requests a second, median and 99th percentile of their times, and the
        CPU seconds that a server spent on one.
    """
    with TemporaryDirectory() as folder, _servers(model, Path(folder), load) as servers:
        for server in servers.values():
            replace(load, requests=4).press(server, 2)
        for level in levels:
            seen = {name: Seen() for name in servers}
            cpu_s = dict.fromkeys(servers, 0.0)
            for _ in range(load.rounds):
                for name, server in servers.items():
                    before_s = _cpu_s(server)
                    seen[name].add(load.press(server, level))
                    cpu_s[name] += _cpu_s(server) - before_s
            figures: Figures = {}
            for name, each in seen.items():
                figures |= {
                    f"rps_{level}_{name}": round(each.rps, 3),
                    f"p50_{level}_{name}_s": round(each.median_s, 3),
                    f"p99_{level}_{name}_s": round(each.quantile_s(0.99), 3),
                    f"cpu_{level}_{name}_s": round(cpu_s[name] / len(each.seconds), 3),
                    f"failed_{level}_{name}": len(each.failures),
                }
            yield figures


@contextmanager
def _servers(model: Path, folder: Path, load: Load) -> Iterator[dict[str, ServerProcess]]:
    with ExitStack() as stack:
        servers = {"ours": stack.enter_context(_ours(model, folder / "ours"))}
        if load.bfloat16:
            half = _ours(model, folder / "half", FEWSTROKE_DTYPE="bfloat16")
            servers["ours_bf16"] = stack.enter_context(half)
        for design in Design:
            peer = _peer(model, design, folder / f"{design}.log")
            servers[design.value] = stack.enter_context(peer)
        for server in servers.values():
            server.wait_until_ready(READY_WITHIN_S)
        yield servers


@contextmanager
def _ours(model: Path, folder: Path, **settings: str) -> Iterator[ServerProcess]:
    folder.mkdir()
    given = {"FEWSTROKE_QUEUE_CAPACITY": "256", "FEWSTROKE_DATA_DIR": str(folder), **settings}
    with (
        patch.dict(os.environ, given),
        running_server(port=0, log_file=folder / "log", model=str(model)) as server,
    ):
        yield server


@contextmanager
def _peer(model: Path, design: Design, log_file: Path) -> Iterator[ServerProcess]:
    port = free_port(0)
    command = [sys.executable, "-m", "benchmarks.peers.pipeline_server", "--design", design]
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (our own program and arguments)
            [*command, "--model", str(model), "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield ServerProcess(process=process, port=port, log_file=log_file)
    finally:
        process.terminate()
        process.wait(30)


def _measure_engine(model: Path) -> Figures:
    by_variant = differences(model)
    return {
        "tick_overhead": round(tick_overhead(model), 4),
        "invariance_max_abs": max(by_variant.values()),
        **{f"invariance_{name}": value for name, value in by_variant.items()},
    }


def _measure_overload(model: Path, load: Load) -> Figures:
    capacity = {"FEWSTROKE_QUEUE_CAPACITY": str(OVERLOAD_PLACES)}
    with TemporaryDirectory() as folder, _ours(model, Path(folder) / "ours", **capacity) as server:
        server.wait_until_ready(READY_WITHIN_S)
        return measure_overload(
            server,
            num_clients=10 * OVERLOAD_PLACES,
            seconds=OVERLOAD_S,
            steps=load.steps,
            guidance=load.guidance,
        )


def _measure_start(model: Path) -> Figures:
    seen = bench_first_image.measure(str(model), None, 3)
    return {"start_to_first_image_s": seen["first_image_s"], "resident_mb": seen["resident_mb"]}


def _measure_fuzz(num_examples: int, num_raw: int) -> Figures:
    report = run_tests(
        [ROOT / "tests/e2e/test_fuzz.py"], FUZZ_EXAMPLES=str(num_examples), FUZZ_RAW=str(num_raw)
    )
    return {
        "fuzz_calls": report.total("calls") or 0,
        "fuzz_5xx": report.total("server_errors") or 0,
        "fuzz_failed": report.failed,
    }


def _cpu_s(server: ServerProcess) -> float:
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    run_command(main)
