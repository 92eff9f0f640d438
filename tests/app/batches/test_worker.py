"""A worker process ends when it is told to, and keeps nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.storage.tables import BatchItem
from tests.app.batches.conftest import Lab, lines

NUM_LINES = 2000
PATIENCE_S = 120.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_ends_by_that_signal_and_holds_no_line(
    lab: Lab, database_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    lab.accepted(*lines(NUM_LINES))
    settings = {
        "FEWSTROKE_DATABASE_URL": database_url,
        "FEWSTROKE_STORAGE": str(tmp_path / "store"),
        "FEWSTROKE_DATA_DIR": str(tmp_path / "data"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.quick_painter", "work"], env=os.environ | settings
    ) as worker:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while count(lab, "completed") == 0:
                assert worker.poll() is None, "the worker ended by itself"
                assert time.monotonic() < deadline, "the worker finished no line"
                time.sleep(0.02)
            worker.send_signal(number)
            assert worker.wait(PATIENCE_S) == -number
        finally:
            worker.kill()
    assert count(lab, "leased") == 0
    assert 0 < count(lab, "completed") < NUM_LINES


def count(lab: Lab, state: str) -> int:
    with lab.database.read() as session:
        counted = select(func.count()).where(BatchItem.state == state)
        return session.scalars(counted).one()
