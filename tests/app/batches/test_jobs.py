"""A worker finishes what it can, and what it cannot hurts nobody else."""

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import func, select

from app.batches.batches import Batch
from app.batches.jobs import JobRunner
from app.batches.lines import Call, to_outcome
from app.storage.blobs import StorageUnavailableError
from app.storage.database import Database
from app.storage.tables import BatchItem
from core.errors import DeviceMemoryError, InputError, QueueFullError
from tests.app.batches.conftest import Lab, line, lines, make_lab

PATIENCE_S = 300.0
ENDED = {"completed", "failed", "expired", "cancelled"}


def work(lab: Lab, *runners: JobRunner, until: Callable[[], bool]) -> None:
    """Let workers run until something is true."""

    async def run() -> None:
        for runner in runners:
            runner.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await asyncio.to_thread(until):  # noqa: ASYNC110  (asks the database)
                    await asyncio.sleep(0.02)
        finally:
            for runner in runners:
                await runner.close()

    asyncio.run(run())


def finished(lab: Lab, batch: Batch) -> Batch:
    return lab.batches.get(batch.id, owner=batch.owner)


def is_ended(lab: Lab, *batches: Batch) -> Callable[[], bool]:
    return lambda: all(finished(lab, batch).cleaned_at for batch in batches)


def test_every_line_gets_its_result_in_the_order_of_the_input(lab: Lab) -> None:
    batch = lab.submit(*lines(25))
    work(lab, lab.runner(), until=is_ended(lab, batch))
    names = [row["custom_id"] for row in lab.output(finished(lab, batch))]
    assert names == [f"line-{k}" for k in range(25)]


def test_a_batch_may_lie_in_an_object_store(database: Database, bucket: str) -> None:
    lab = make_lab(database, f"s3://{bucket}")
    batch = lab.submit(*lines(25))
    work(lab, lab.runner(), until=is_ended(lab, batch))
    assert len(lab.output(finished(lab, batch))) == 25


def test_the_same_line_of_a_batch_has_the_same_seed_whoever_paints_it(lab: Lab) -> None:
    batch = lab.submit(*lines(3), line("given", seed=5))
    seen: dict[str, set[int]] = {}

    async def answer(call: Call) -> Mapping[str, Any]:
        seen.setdefault(call.request_id, set()).add(call.body["seed"])
        if len(seen[call.request_id]) == 1 and not again.get(call.request_id):
            again[call.request_id] = True
            raise QueueFullError("Full.", retry_after_s=0.01)
        return {"data": []}

    again: dict[str, bool] = {}
    work(lab, lab.runner(answer), until=is_ended(lab, batch))
    assert {len(seeds) for seeds in seen.values()} == {1}
    assert {5} in seen.values()


def test_a_line_that_fails_fails_alone(lab: Lab) -> None:
    tries: Counter[str] = Counter()

    async def answer(call: Call) -> Mapping[str, Any]:
        kind = call.body["prompt"]
        tries[kind] += 1
        if kind == "refused":
            raise InputError("No.", param="prompt")
        if kind == "bug":
            raise RuntimeError("broken")
        if kind == "memory":
            raise DeviceMemoryError("Too large.", retry_after_s=0.01)
        if kind == "full" and tries["full"] < 6:
            raise QueueFullError("Full.", retry_after_s=0.01)
        return {"data": []}

    kinds = ["good", "refused", "bug", "memory", "full"]
    batch = lab.submit(*(line(kind, prompt=kind) for kind in kinds))
    work(lab, lab.runner(answer), until=is_ended(lab, batch))
    done = finished(lab, batch)
    assert [row["custom_id"] for row in lab.output(done)] == ["good", "full"]
    assert {
        row["custom_id"]: row["response"]["status_code"] for row in lab.output(done, "error")
    } == {"refused": 400, "bug": 500, "memory": 503}
    assert tries == {"good": 1, "refused": 1, "bug": 3, "memory": 3, "full": 6}


def test_a_line_that_takes_workers_down_is_given_up_alone(lab: Lab) -> None:
    batch = lab.accepted(*lines(6))
    for _ in range(4):  # each of these dies with what it holds
        dying = lab.leases(lease_s=0.01)
        while not dying.claim(2, is_idle=True):
            dying.reclaim()
    patient = lab.runner(lease_s=0.5, max_tries=2)
    work(lab, patient, until=is_ended(lab, batch))
    done = finished(lab, batch)
    good, lost = lab.output(done), lab.output(done, "error")
    assert len(good) + len(lost) == 6
    assert 1 <= len(lost) <= 2
    assert {row["response"]["body"]["error"]["code"] for row in lost} == {"worker_lost"}


def test_two_workers_share_a_batch_and_paint_no_line_twice(lab: Lab) -> None:
    batch = lab.submit(*lines(40))
    work(lab, lab.runner(), lab.runner(), until=is_ended(lab, batch))
    assert len(lab.output(finished(lab, batch))) == 40
    assert max(Counter(call.request_id for call in lab.calls).values()) == 1


def test_a_worker_that_is_told_to_stop_gives_its_lines_back(lab: Lab) -> None:
    batch = lab.submit(*lines(8))
    begun: list[str] = []

    async def never(call: Call) -> Mapping[str, Any]:
        begun.append(call.request_id)
        await asyncio.Event().wait()
        return {}

    work(lab, lab.runner(never), until=lambda: len(begun) == 4)
    with lab.database.read() as session:
        states = session.execute(
            select(BatchItem.state, BatchItem.tries, func.count())
            .where(BatchItem.batch_id == batch.id)
            .group_by(BatchItem.state, BatchItem.tries)
        ).all()
    assert [tuple(row) for row in states] == [("pending", 0, 8)]


def test_cancel_stops_what_is_being_painted(lab: Lab) -> None:
    batch = lab.submit(*lines(8))
    stopped: list[str] = []

    async def slow(call: Call) -> Mapping[str, Any]:
        if len(stopped) == 0 and finished(lab, batch).status == "in_progress":
            lab.batches.cancel(batch.id, owner=batch.owner)
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(call.request_id)
        return {}

    work(lab, lab.runner(slow, lease_s=0.8), until=lambda: len(stopped) == 4)
    lab.run_stages()
    done = finished(lab, batch)
    assert done.status == "cancelled"
    codes = [row["error"]["code"] for row in lab.output(done, "error")]
    assert codes == ["batch_cancelled"] * 8


def test_a_full_disk_stops_the_work_and_loses_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = lab.accepted(*lines(6))
    disk = {"is_full": True, "refused": 0}
    write = lab.store._files.open

    def open_on_a_full_disk(path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode and disk["is_full"]:
            disk["refused"] += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, mode, **options)

    monkeypatch.setattr(lab.store._files, "open", open_on_a_full_disk)
    monkeypatch.setattr("core.errors.CapacityError.__init__", _without_waiting)
    with pytest.raises(StorageUnavailableError, match="No space left"):
        lab.upload(b"x")

    def look() -> bool:
        if disk["refused"] >= 4:
            disk["is_full"] = False
        return is_ended(lab, batch)()

    work(lab, lab.runner(), until=look)
    assert len(lab.output(finished(lab, batch))) == 6
    assert disk["refused"] >= 4
    assert max(Counter(call.request_id for call in lab.calls).values()) == 1


def _without_waiting(self: Any, message: str, *, retry_after_s: float = 1.0) -> None:
    Exception.__init__(self, message)
    self.message, self.param, self.retry_after_s = message, None, 0.01


def test_an_error_of_memory_counts_and_a_full_queue_does_not(lab: Lab) -> None:
    lab.accepted(*lines(1))
    [item] = lab.leases().claim(1, is_idle=True)
    full = to_outcome(item, QueueFullError("Full.", retry_after_s=3.0))
    assert (full.delay_s, full.counts) == (3.0, False)  # type: ignore[union-attr]
    assert to_outcome(item, DeviceMemoryError("Large.")).counts  # type: ignore[union-attr]


def test_pictures_that_are_files_expire_with_the_output(lab: Lab) -> None:
    batch = lab.submit(*lines(2), results="file_id", output_expires_after_s=7200)
    work(lab, lab.runner(), until=is_ended(lab, batch))
    for row in lab.output(finished(lab, batch)):
        [picture] = row["response"]["body"]["data"]
        file = lab.files.get(picture["file_id"], owner=batch.owner)
        assert file.expires_at == pytest.approx(file.created_at + 7200)
