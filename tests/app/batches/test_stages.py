"""Whoever was too slow to end a batch spoils nothing, and what they left is swept up."""

import time
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import update

from app.batches.item_results import ItemResult
from app.batches.leftovers import Leftovers
from app.batches.lines import Finished
from app.batches.output import OutputFiles, outputs_of, result_line, segments_of, write_segment
from app.storage.blobs import StorageUnavailableError
from app.storage.tables import Batch
from tests.app.batches.conftest import Lab, lines


def painted(lab: Lab, *, count: int = 3) -> Batch:
    """A batch whose lines have their results, and that nobody has ended."""
    batch = lab.accepted(*lines(count))
    leases = lab.leases()
    items = leases.claim(count, is_idle=True)
    results = [result_line(batch.id, x.custom_id, status=200, body={"n": x.line}) for x in items]
    path, places = write_segment(lab.store, batch.id, results)
    leases.complete(
        batch.id,
        [
            ItemResult(line=item.line, is_success=True, path=path, start=start, num_bytes=size)
            for item, (start, size) in zip(items, places, strict=True)
        ],
    )
    return batch


@pytest.mark.parametrize("moment", ["__enter__", "add", "close"])
def test_one_who_slept_through_its_lease_takes_nothing_from_its_successor(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    batch = painted(lab)
    slow = lab.stages()
    monkeypatch.setattr(slow, "_lease_s", 0.2)
    really = getattr(OutputFiles, moment)
    is_asleep = False

    def sleep_first(self: OutputFiles, *given: Any) -> Any:
        nonlocal is_asleep
        if not is_asleep:
            is_asleep = True
            time.sleep(0.4)
            lab.run_stages()
            assert lab.batches.get(batch.id, owner=batch.owner).status == "completed"
        return really(self, *given)

    monkeypatch.setattr(OutputFiles, moment, sleep_first)
    with suppress(StorageUnavailableError):  # results that it was reading are gone, too
        assert slow.run_next()
    ended = lab.batches.get(batch.id, owner=batch.owner)
    assert [row["response"]["body"]["n"] for row in lab.output(ended)] == [1, 2, 3]
    [winner] = lab.store.children(outputs_of(batch.id))
    assert lab.files.get(str(ended.output_file_id), owner=batch.owner).path.startswith(winner)


def test_a_heart_that_beats_keeps_a_piece_of_any_length(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = painted(lab)
    slow, other = lab.stages(), lab.stages()
    monkeypatch.setattr(slow, "_lease_s", 0.4)
    really, taken = OutputFiles.close, []

    def take_long(self: OutputFiles) -> Any:
        for _ in range(6):
            time.sleep(0.15)
            slow.keep()
            taken.append(other.run_next())
        return really(self)

    monkeypatch.setattr(OutputFiles, "close", take_long)
    assert slow.run_next()
    assert taken == [False] * 6
    assert lab.batches.get(batch.id, owner=batch.owner).status == "completed"
    slow.keep()  # of nothing


def test_what_a_killed_one_left_is_removed_with_the_batch(lab: Lab) -> None:
    batch = painted(lab)
    with lab.store.writing(f"{outputs_of(batch.id)}/killed/file-1") as blob:
        blob.write(b"half")
    lab.run_stages()
    ended = lab.batches.get(batch.id, owner=batch.owner)
    assert len(lab.output(ended)) == 3
    assert len(lab.store.children(outputs_of(batch.id))) == 1


def test_results_of_one_who_died_over_them_are_swept_up(lab: Lab) -> None:
    ended, running = painted(lab), lab.accepted(*lines(1))
    lab.run_stages()
    for batch in (ended, running):
        write_segment(lab.store, batch.id, [b"late"])
    leftovers = Leftovers(lab.database, lab.store)
    assert leftovers.sweep(30) == 0  # somebody may be reading still
    with lab.database.write() as session:
        session.execute(update(Batch).values(cleaned_at=Batch.cleaned_at - 100))
    assert leftovers.sweep(30) == 1
    assert lab.store.children(segments_of(ended.id)) == []
    assert len(lab.store.children(segments_of(running.id))) == 1


def test_results_that_come_after_the_end_leave_nothing_in_storage(lab: Lab) -> None:
    batch = lab.accepted(*lines(2))
    runner = lab.runner()
    item = runner._tools.leases.claim(1, is_idle=True)[0]
    lab.batches.cancel(batch.id, owner=batch.owner)
    lab.run_stages()
    assert lab.batches.get(batch.id, owner=batch.owner).cleaned_at is not None
    runner._write_batch(batch.id, [Finished(item=item, content=b"{}\n", is_success=True)])
    assert lab.store.children(segments_of(batch.id)) == []
