"""A worker process ends when it is told to, and keeps nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.storage.database import SILENT_TRANSACTION_MS
from app.storage.tables import BatchItem
from tests.app.batches.conftest import Lab, lines

NUM_LINES = 2000
PATIENCE_S = 120.0


LEASE_S = 4.0
SLACK_S = 3.0
"""What busy machines take to look."""


@contextmanager
def working(database_url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process of its own."""
    settings = {
        "FEWSTROKE_DATABASE_URL": database_url,
        "FEWSTROKE_STORAGE": str(folder / "store"),
        "FEWSTROKE_DATA_DIR": str(folder / "data"),
        "FEWSTROKE_BATCH_LEASE_S": str(LEASE_S),
    }
    command = [sys.executable, "-m", "benchmarks.quick_painter", "work"]
    with subprocess.Popen(command, env=os.environ | settings) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def wait_until(is_so: Callable[[], bool], *workers: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert all(worker.poll() is None for worker in workers), "a worker ended by itself"
        assert time.monotonic() < deadline, "the workers do not get on"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_ends_by_that_signal_and_holds_no_line(
    lab: Lab, database_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    lab.accepted(*lines(NUM_LINES))
    with working(database_url, tmp_path) as worker:
        wait_until(lambda: count(lab, "completed") > 0, worker)
        worker.send_signal(number)
        assert worker.wait(PATIENCE_S) == -number
    assert count(lab, "leased") == 0
    assert 0 < count(lab, "completed") < NUM_LINES


def test_lines_of_a_worker_that_stops_go_to_another_within_a_lease(
    lab: Lab, database_url: str, tmp_path: Path
) -> None:
    batch = lab.accepted(*lines(NUM_LINES))
    with working(database_url, tmp_path) as silent, working(database_url, tmp_path) as other:
        wait_until(lambda: held_by(lab, silent) and held_by(lab, other), silent, other)
        with lab.database.write():  # SQLite's lock is not with whom we stop, or all would wait
            silent.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        lost = held_by(lab, silent)
        wait_until(lambda: not held_by(lab, silent), other)
        assert time.monotonic() - stopped_at < longest_hold_s(lab) + SLACK_S
        wait_until(lambda: done(lab, lost) == len(lost), other)
        silent.send_signal(signal.SIGCONT)  # and tries to write what it had
        wait_until(lambda: held_by(lab, silent) != [], silent, other)
    seen = lab.batches.get(batch.id, owner=batch.owner)
    assert seen.num_completed == count(lab, "completed")
    assert seen.num_failed == 0


def longest_hold_s(lab: Lab) -> float:
    """PostgreSQL may catch a worker amid a transaction, whose rows it frees after a while."""
    return LEASE_S if lab.database.is_sqlite else max(LEASE_S, SILENT_TRANSACTION_MS / 1000)


def held_by(lab: Lab, worker: subprocess.Popen[bytes]) -> list[int]:
    with lab.database.read() as session:
        mine = BatchItem.lease_token.contains(f":{worker.pid}:")
        return list(session.scalars(select(BatchItem.line).where(mine)))


def done(lab: Lab, some: list[int]) -> int:
    with lab.database.read() as session:
        ended = BatchItem.line.in_(some) & (BatchItem.state == "completed")
        return session.scalars(select(func.count()).where(ended)).one()


def count(lab: Lab, state: str) -> int:
    with lab.database.read() as session:
        counted = select(func.count()).where(BatchItem.state == state)
        return session.scalars(counted).one()
