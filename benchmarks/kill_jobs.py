"""Kill the server and a worker, again and again, and look whether a batch ever noticed.

Clients upload, submit, cancel and fetch batches without a pause while a reaper, on a clock of its
own, sends SIGKILL to one of two real processes at random moments, in the midst of whatever they do:
an upload, validation, painting, finalising, a cancel, an answer. Afterwards every line of every
batch must have exactly one result, and each picture must be, byte for byte, what an undisturbed run
made of the same line.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Final, TypeVar

from openai import APIConnectionError, APIStatusError, OpenAI
from openai.types import Batch

from cli.server_process import free_port
from core.errors import DeadlineError

ENDPOINT: Final = "/v1/images/generations"
ENDED = {"completed", "failed", "expired", "cancelled"}
NUM_LINES = 60
NUM_CALLERS = 2
LINE_BYTES = 30_000
PAUSE_S = 0.02
LEASE_S = 5.0
PATIENCE_S = 200.0
MAX_PAUSE_S = 6.0
STARTED_SHARE = 0.8

Answer = TypeVar("Answer")


@dataclass(kw_only=True, slots=True)
class Tally:
    """What was seen.

    Attributes:
        kills: Processes killed.
        batches: Batches that ran to their end.
        cancelled: Those that were cancelled on the way.
        results: Lines whose result was compared with the undisturbed run.
        lost: Lines without a result.
        doubled: Lines with more than one.
        different: Lines with another result than undisturbed.
        stages: How often a process died while a caller was doing what, or its batch in which
            status.
    """

    kills: int = 0
    batches: int = 0
    cancelled: int = 0
    results: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    stages: Counter[str] = field(default_factory=Counter)


def kill_under_load(folder: Path, database_url: str, *, num_kills: int, seed: int) -> Tally:
    """Run batches while processes die.

    Args:
        folder: Where the service keeps its files, and its log.
        database_url: An empty database.
        num_kills: Processes to kill.
        seed: Decides who dies when.

    Returns:
        What was lost, doubled or different; all three should be 0.
    """
    chance = random.Random(seed)  # noqa: S311  (to be repeatable)
    with _cluster(folder, database_url) as processes, ExitStack() as stack:
        callers = [
            Caller(stack.enter_context(_client(processes.port)), random.Random(chance.random()))  # noqa: S311
            for _ in range(NUM_CALLERS)
        ]
        started = time.monotonic()
        callers[0].wait_until_up()
        start_s = time.monotonic() - started
        undisturbed, _ = callers[0].results(callers[0].run())
        reaper = Reaper(processes, callers, chance, start_s=start_s)
        pool = stack.enter_context(ThreadPoolExecutor())
        counting = [pool.submit(_count_until, reaper.is_over, undisturbed, x) for x in callers]
        reaping = pool.submit(reaper.run, num_kills)
        tallies = [each.result() for each in counting]
        stages = reaping.result()
    summed = {
        name: sum(getattr(tally, name) for tally in tallies)
        for name in ("batches", "cancelled", "results", "lost", "doubled", "different")
    }
    return Tally(kills=num_kills, stages=stages, **summed)


class Processes:
    """One server and one worker on one database and one storage.

    Args:
        environment: Their settings.
        port: Where the server listens.
        log: Where both write.
    """

    def __init__(self, environment: dict[str, str], port: int, log: Path) -> None:
        self.port = port
        self._environment = environment
        self._log = log
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str) -> None:
        """Start one of them.

        Args:
            role: "serve" or "work".
        """
        command = [sys.executable, "-m", "benchmarks.quick_painter", role]
        with self._log.open("ab") as log:
            self._running[role] = subprocess.Popen(  # noqa: S603  (our own program)
                command, env=os.environ | self._environment, stdout=log, stderr=log
            )

    def replace(self, role: str) -> None:
        """Kill one of them and start it again.

        Args:
            role: "serve" or "work".
        """
        self.check()
        process = self._running.pop(role)
        process.kill()
        process.wait()
        self.start(role)

    def check(self) -> None:
        """Refuse to go on without one of them.

        Raises:
            DeadlineError: If one has ended by itself.
        """
        for role, process in self._running.items():
            if process.poll() is not None:
                last = self._log.read_text("utf-8")[-2000:]
                raise DeadlineError(f"{role} ended by itself ({process.returncode}): {last}")

    def stop(self) -> None:
        """End both as an operator would."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.wait()


class Reaper:
    """Kills a random process at random moments.

    Args:
        processes: Its victims.
        callers: Asked what they are doing when somebody dies.
        chance: Decides.
        start_s: How long a server takes to come up.

    Attributes:
        is_over: Set when nobody dies any more.
    """

    def __init__(
        self,
        processes: Processes,
        callers: Sequence["Caller"],
        chance: random.Random,
        *,
        start_s: float,
    ) -> None:
        self.is_over = Event()
        self._processes = processes
        self._callers = callers
        self._chance = chance
        self._start_s = start_s

    def run(self, num_kills: int) -> Counter[str]:
        """Kill so often, or until a caller gives up.

        Args:
            num_kills: Processes to kill.

        Returns:
            What callers were doing meanwhile, each counted at each kill.
        """
        stages: Counter[str] = Counter()
        try:
            for _ in range(num_kills):
                if self.is_over.wait(self._pause_s()):
                    break
                stages.update(caller.doing for caller in self._callers)
                self._processes.replace(self._chance.choice(["serve", "work"]))
        finally:
            self.is_over.set()
        return stages

    def _pause_s(self) -> float:
        # most victims come up first, or nothing but start-ups would be killed; some do not
        start_s = self._start_s if self._chance.random() < STARTED_SHARE else 0.0
        return start_s + self._chance.uniform(0.1, MAX_PAUSE_S)


class Caller:
    """A client that tries again while nobody answers, as clients do.

    Args:
        openai: OpenAI's own.
        chance: Decides what it cancels, and when.

    Attributes:
        doing: A request that is under way, or the status of its batch.
    """

    def __init__(self, openai: OpenAI, chance: random.Random) -> None:
        self.doing = "before"
        self.chance = chance
        self._openai = openai

    def wait_until_up(self) -> None:
        """Return when the server answers."""
        self._call("before", lambda: self._openai.batches.list(limit=1))

    def run(self, *, cancels: bool = False) -> Batch:
        """Upload a file, submit it, and wait for the end.

        Args:
            cancels: Whether to cancel it on the way.

        Returns:
            The batch that has ended.

        Raises:
            DeadlineError: If it does not end.
        """
        client, give_up_at = self._openai, time.monotonic() + PATIENCE_S
        file = self._call(
            "upload",
            lambda: client.files.create(file=("in.jsonl", _SlowFile(_content())), purpose="batch"),
        )
        batch = self._call(
            "create",
            lambda: client.batches.create(
                input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h"
            ),
        )
        cancel_at = self.chance.uniform(0.0, 0.8) * NUM_LINES
        while batch.status not in ENDED:
            counts = batch.request_counts
            if cancels and counts is not None and counts.completed >= cancel_at:
                cancels = False
                self._cancel(batch)
            batch = self._call(batch.status, lambda: client.batches.retrieve(batch.id))  # noqa: B023
            if time.monotonic() > give_up_at:
                raise DeadlineError(f"{batch.id} is still {batch.status}.")
            time.sleep(PAUSE_S)
        return batch

    def results(self, batch: Batch) -> tuple[dict[str, Any], int]:
        """Fetch both files of a batch.

        Args:
            batch: A batch that has ended.

        Returns:
            What became of each line, and how many lines stood there twice.
        """
        found: dict[str, Any] = {}
        num_doubled = 0
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            content = self._call("results", lambda: self._openai.files.content(file_id))  # noqa: B023
            for row in map(json.loads, content.text.splitlines()):
                num_doubled += row["custom_id"] in found
                found[row["custom_id"]] = _lasting(row)
        return found, num_doubled

    def _cancel(self, batch: Batch) -> None:
        with suppress(APIStatusError):  # it may have ended just now
            self._call("cancel", lambda: self._openai.batches.cancel(batch.id))

    def _call(self, doing: str, request: Callable[[], Answer]) -> Answer:
        give_up_at = time.monotonic() + PATIENCE_S
        self.doing = doing
        while True:
            try:
                return request()
            except (APIConnectionError, APIStatusError) as error:
                is_final = isinstance(error, APIStatusError) and error.status_code < 500
                if is_final or time.monotonic() > give_up_at:
                    raise
            time.sleep(0.1)


class _SlowFile(io.BytesIO):
    """A file that takes its time, so that a server may die in the midst of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(PAUSE_S)
        return super().read(size)


def _client(port: int) -> OpenAI:
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=30)


def _content() -> bytes:
    bodies: list[dict[str, Any]] = [{"seed": k, "steps": 2} for k in range(NUM_LINES - 2)]
    bodies += [{"steps": 0}, {"wibble": 1}]  # two that must fail, and always in the same way
    rows = [
        {
            "custom_id": f"line-{k}",
            "method": "POST",
            "url": ENDPOINT,
            "body": {"prompt": f"apple number {k}"} | body,
        }
        for k, body in enumerate(bodies)
    ]
    return "\n".join(json.dumps(row).ljust(LINE_BYTES) for row in rows).encode()


def _lasting(row: dict[str, Any]) -> object:
    # what must not depend on who painted a line, when, and how often
    if row["response"] is None:
        return row["error"]["code"]
    body = row["response"]["body"]
    return row["response"]["status_code"], body.get("data"), body.get("error")


def _count_until(is_over: Event, undisturbed: dict[str, Any], caller: Caller) -> Tally:
    tally = Tally()
    try:
        while not is_over.is_set():
            _count(tally, undisturbed, caller)
    finally:
        is_over.set()
    return tally


def _count(tally: Tally, undisturbed: dict[str, Any], caller: Caller) -> None:
    batch = caller.run(cancels=caller.chance.random() < 0.25)
    found, num_doubled = caller.results(batch)
    tally.batches += 1
    tally.cancelled += batch.status == "cancelled"
    tally.doubled += num_doubled + len(found.keys() - undisturbed.keys())
    if batch.in_progress_at is None and batch.status == "cancelled":
        return  # its lines had not been read when it was cancelled
    for name, expected in undisturbed.items():
        tally.lost += name not in found
        if name in found and not (batch.status == "cancelled" and found[name] == "batch_cancelled"):
            tally.results += 1
            tally.different += found[name] != expected


@contextmanager
def _cluster(folder: Path, database_url: str) -> Iterator[Processes]:
    port = free_port(0)
    environment = {
        "FEWSTROKE_DATA_DIR": str(folder),
        "FEWSTROKE_DATABASE_URL": database_url,
        "FEWSTROKE_PORT": str(port),
        "FEWSTROKE_BATCH_LEASE_S": str(LEASE_S),
        "FEWSTROKE_BATCH_MAX_TRIES": "1000",  # these die of a signal, and not of a line
        "FEWSTROKE_BATCH_CONCURRENCY": "4",
        "FEWSTROKE_LOG_LEVEL": "warning",
    }
    processes = Processes(environment, port, folder / "log")
    try:
        for role in ("serve", "work"):
            processes.start(role)
        yield processes
    finally:
        processes.stop()
