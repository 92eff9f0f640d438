"""Whoever is killed, whenever: every accepted line has exactly one result, and the right one.

Two hundred times and more: `python -m benchmarks.bench_jobs --kills 200`.
"""

import os
from pathlib import Path

import pytest

from benchmarks.kill_jobs import kill_under_load

NUM_KILLS = 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_lose_nothing_double_nothing_and_change_no_picture(
    tmp_path: Path, database_url: str
) -> None:
    num_kills = int(os.environ.get("KILLS", NUM_KILLS))
    seen = kill_under_load(tmp_path, database_url, num_kills=num_kills, seed=num_kills)
    assert (seen.lost, seen.doubled, seen.different) == (0, 0, 0)
    assert seen.kills == num_kills
    assert seen.results > 0
