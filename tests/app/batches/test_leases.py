"""Lines are lent, taken back, and finished once."""

import threading
import time
from collections import Counter

from sqlalchemy import select, update

from app.batches.item_results import ItemResult
from app.batches.leases import Item, Leases
from app.storage.tables import Batch, BatchItem
from tests.app.batches.conftest import Lab, line, lines


def done(item: Item, path: str = "somewhere") -> ItemResult:
    return ItemResult(line=item.line, is_success=True, path=path, start=0, num_bytes=1)


def claim(leases: Leases, limit: int = 100, *, is_idle: bool = True) -> list[Item]:
    return leases.claim(limit, is_idle=is_idle)


def states(lab: Lab, batch: Batch) -> list[str]:
    with lab.database.read() as session:
        query = select(BatchItem.state).where(BatchItem.batch_id == batch.id)
        return list(session.scalars(query.order_by(BatchItem.line)))


def test_a_line_is_lent_to_one_worker_at_a_time(lab: Lab) -> None:
    lab.accepted(*lines(10))
    first, second = lab.leases(), lab.leases()
    assert [item.line for item in claim(first, 6)] == [1, 2, 3, 4, 5, 6]
    assert [item.line for item in claim(second)] == [7, 8, 9, 10]
    assert claim(first) == claim(second) == []


def test_many_workers_at_once_never_get_the_same_line(lab: Lab) -> None:
    lab.accepted(*lines(60))
    lab.accepted(*lines(60))
    got: list[tuple[str, int]] = []

    def work() -> None:
        leases = lab.leases()
        while items := claim(leases, 7):
            got.extend((item.batch_id, item.line) for item in items)
            leases.complete(items[0].batch_id, [done(item) for item in items])

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(got) == 120
    assert max(Counter(got).values()) == 1


def test_a_group_is_what_one_forward_pass_can_paint(lab: Lab) -> None:
    sizes = ["128x128", "256x128", "128x128", "128x128"]
    lab.accepted(*(line(str(k), size=size) for k, size in enumerate(sizes)))
    leases = lab.leases()
    assert [item.line for item in claim(leases)] == [1, 3, 4]
    assert [item.line for item in claim(leases)] == [2]


def test_a_silent_worker_loses_its_lines_and_a_beating_heart_keeps_them(lab: Lab) -> None:
    batch = lab.accepted(*lines(4))
    silent, alive, other = lab.leases(0.3), lab.leases(0.3), lab.leases()
    lost, kept = claim(silent, 2), claim(alive, 2)
    mine = [(item.batch_id, item.line) for item in kept]
    give_up_at = time.monotonic() + 10
    while not (taken := claim(other)):
        assert alive.extend(mine) == set(mine)
        other.reclaim()
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    assert [item.line for item in taken] == [item.line for item in lost]
    assert [item.tries for item in taken] == [2, 2]
    assert silent.extend([(batch.id, item.line) for item in lost]) == set()


def test_a_result_is_taken_once_and_from_the_holder_alone(lab: Lab) -> None:
    batch = lab.accepted(*lines(2))
    slow, fast = lab.leases(0.01), lab.leases()
    items = claim(slow)
    time.sleep(0.05)
    assert fast.reclaim() == (2, False)
    again = claim(fast)
    assert slow.complete(batch.id, [done(item, "late") for item in items]) == []
    assert fast.complete(batch.id, [done(item) for item in again]) == [1, 2]
    assert fast.complete(batch.id, [done(item) for item in again]) == []
    seen = lab.batches.get(batch.id, owner=batch.owner)
    assert (seen.num_completed, seen.num_failed, seen.status) == (2, 0, "finalizing")


def test_batches_and_owners_take_turns(lab: Lab) -> None:
    big = lab.accepted(*lines(30), owner="a")
    also_big = lab.accepted(*lines(30), owner="a")
    small = lab.accepted(*lines(30), owner="b")
    leases, turns = lab.leases(), []
    for _ in range(8):
        items = claim(leases, 2)
        turns.append(items[0].batch_id)
    counts = Counter(turns)
    assert counts[small.id] == 4  # half of the turns, as there are two owners
    assert counts[big.id] == counts[also_big.id] == 2


def test_a_suspicious_line_is_lent_alone_and_to_the_idle(lab: Lab) -> None:
    batch = lab.accepted(*lines(5))
    with lab.database.write() as session:
        session.execute(
            update(BatchItem)
            .where(BatchItem.batch_id == batch.id, BatchItem.line == 3)
            .values(tries=2)
        )
    busy, idle = lab.leases(), lab.leases()
    assert busy.reclaim() == (0, True)
    assert [item.line for item in claim(busy, is_idle=False)] == [1, 2, 4, 5]
    assert claim(busy, is_idle=False) == []
    assert [item.line for item in claim(idle)] == [3]


def test_what_is_released_is_free_at_once_or_later(lab: Lab) -> None:
    batch = lab.accepted(*lines(3))
    leases = lab.leases()
    claim(leases)
    leases.release(batch.id, [1], counts=True)
    leases.release(batch.id, [2], delay_s=60.0)
    assert [(item.line, item.tries) for item in claim(leases)] == [(1, 2)]
    leases.release_all()
    assert states(lab, batch) == ["pending"] * 3


def test_a_cancelled_batch_lends_nothing_and_takes_no_more_results(lab: Lab) -> None:
    batch = lab.accepted(*lines(4))
    leases = lab.leases()
    items = claim(leases, 2)
    leases.complete(batch.id, [done(items[0])])
    lab.batches.cancel(batch.id, owner=batch.owner)
    assert claim(leases) == []
    assert leases.extend([(batch.id, items[1].line)]) == set()
