"""Real disks that fill up or turn read-only under a batch: clear errors, and nothing is lost."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.storage.database import Database
from core.errors import CapacityError
from tests.app.batches.conftest import lines, make_lab

NUM_LINES = 8


@dataclass
class Disk:
    """A small disk of its own."""

    folder: Path

    def fill(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (1 << 16, 1 << 10, 1):
                while _fits(filler, size):
                    pass

    def protect(self) -> None:
        assert _mount("-o", "remount,ro", str(self.folder)).returncode == 0

    def mend(self) -> None:
        _mount("-o", "remount,rw", str(self.folder))
        (self.folder / "filler").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("Only root can mount a disk.")
    mounted = _mount("-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder))
    if mounted.returncode:
        pytest.skip(f"No disk can be mounted here: {mounted.stderr}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("trouble", "told"),
    [(Disk.fill, "No space left|full"), (Disk.protect, "[Rr]ead-?only|unable to open")],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing_more_loses_nothing(
    disk: Disk, database_url: str, trouble: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.batches.jobs.POLL_S", 0.05)
    monkeypatch.setattr("core.errors.CapacityError.__init__", _without_waiting)
    if database_url.startswith("sqlite"):  # PostgreSQL has a disk of its own
        database_url = f"sqlite:///{disk.folder / 'fewstroke.db'}"
    database = Database(database_url)
    database.migrate()
    lab = make_lab(database, str(disk.folder / "store"))
    batch = lab.accepted(*lines(NUM_LINES))
    if trouble is Disk.protect:  # not while files on it are open for writing
        database.close()
    trouble(disk)  # type: ignore[operator]
    with pytest.raises(CapacityError, match=told):
        lab.upload(b"x" * 5000)

    def is_completed() -> bool:
        return lab.batches.get(batch.id, owner=batch.owner).status == "completed"

    async def live_through_it() -> None:
        runner = lab.runner()
        runner.start()
        await asyncio.sleep(1.0)
        disk.mend()
        try:
            async with asyncio.timeout(60):
                while not is_completed():  # noqa: ASYNC110  (asks the database)
                    await asyncio.sleep(0.05)
        finally:
            await runner.close()

    asyncio.run(live_through_it())
    done = lab.batches.get(batch.id, owner=batch.owner)
    assert [row["custom_id"] for row in lab.output(done)] == [f"line-{k}" for k in range(NUM_LINES)]
    assert lab.output(done, "error") == []
    lab.upload(b"x" * 5000)
    database.close()


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


def _fits(filler: object, size: int) -> bool:
    try:
        filler.write(b"\0" * size)  # type: ignore[attr-defined]
    except OSError:
        return False
    return True


def _without_waiting(self: CapacityError, message: str, **_options: object) -> None:
    Exception.__init__(self, message)
    self.message, self.param, self.retry_after_s = message, None, 0.05
