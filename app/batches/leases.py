"""Who works on what: lines of batches and stages of batches, lent for a time.

A claim writes the worker's name and an end into the row; a heartbeat moves the end; whoever finds
an end in the past gives the row to others. Painting may happen twice that way. A result cannot be
written twice: `complete` takes it only from the worker whose name still stands in the row.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    exists,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session, aliased

from app.batches.item_results import ItemResult, count_results, store_results
from app.storage.database import Database, now_s
from app.storage.files import publish
from app.storage.tables import SUSPICIOUS_TRIES, Batch, BatchItem, File, in_state


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One line of a batch, as a worker needs it.

    Attributes:
        batch_id: The batch.
        line: Its number in the input file, from 1.
        custom_id: What the caller calls it.
        owner: Whose batch it is.
        endpoint: What the line is a request to.
        results: How pictures are delivered: "b64_json" or "file_id".
        input_path: Where in storage the input file lies.
        start: Where in the file the line begins, in bytes.
        num_bytes: How long it is.
        tries: Leases so far, this one included.
        output_expires_after_s: Seconds after which its pictures are deleted, where they are files.
    """

    batch_id: str
    line: int
    custom_id: str
    owner: str
    endpoint: str
    results: str
    input_path: str
    start: int
    num_bytes: int
    tries: int
    output_expires_after_s: int | None = None


class Leases:
    """The queue, as one worker sees it.

    Args:
        database: Where the rows are.
        worker: This process's name; no other process ever has the same.
        lease_s: How long a lease lasts without a heartbeat, in seconds.
    """

    def __init__(self, database: Database, *, worker: str, lease_s: float) -> None:
        self.worker = worker
        self.lease_s = lease_s
        self._database = database

    def claim(self, limit: int, *, is_idle: bool) -> list[Item]:
        """Lease lines of one batch that the engine can paint together.

        Owners take turns, and so do the batches of one owner: the one that waited longest is next.

        Args:
            limit: Most lines to lease.
            is_idle: Whether this worker has nothing else in hand; only then a suspicious line
                is leased, and it is leased alone.

        Returns:
            The lines in their order; none if there is nothing to do.
        """
        due = _is_due() if is_idle else _is_due() & ~_is_suspicious()
        with self._database.write(is_durable=False) as session:
            batch = session.execute(_next_batch(due)).first()
            # status is asked again by the update itself: a cancel may have come in between
            if batch is None or not _mark_served(session, batch.batch_id):
                return []
            pending = (
                select(BatchItem.line)
                .where(BatchItem.batch_id == batch.batch_id, _is_due())
                .order_by(BatchItem.line)
                .with_for_update(skip_locked=True)
            )
            if is_idle:
                alone = self._lease(session, batch, pending.where(_is_suspicious()).limit(1))
                if alone:
                    return alone
            group = (
                select(BatchItem.group_key)
                .where(BatchItem.batch_id == batch.batch_id, _is_due(), ~_is_suspicious())
                .order_by(BatchItem.line)
                .limit(1)
                .scalar_subquery()
            )
            alike = pending.where(~_is_suspicious(), BatchItem.group_key == group)
            return self._lease(session, batch, alike.limit(limit))

    def extend(self, lines: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """Give lines that this worker holds a full lease again: the heartbeat.

        Args:
            lines: Batch and line of what is being worked on.

        Returns:
            Which of them it still holds; the others it must drop.
        """
        asked = tuple_(BatchItem.batch_id, BatchItem.line).in_(sorted(lines))
        held = in_state("leased") & (BatchItem.lease_token == self.worker)
        with self._database.write(is_durable=False) as session:
            rows = session.execute(
                update(BatchItem)
                .where(BatchItem.batch_id.in_(_ids_of_running()), asked, held)
                .values(lease_expires_at=now_s() + self.lease_s)
                .returning(BatchItem.batch_id, BatchItem.line)
                .execution_options(synchronize_session=False)
            )
            return {(row.batch_id, row.line) for row in rows}

    def complete(self, batch_id: str, results: Sequence[ItemResult]) -> list[int]:
        """Write results of one batch, each at most once in the life of the batch.

        Args:
            batch_id: The batch.
            results: Results whose bytes are in storage already.

        Returns:
            Lines whose result was taken; the others belong to another worker by now.
        """
        with self._database.write() as session:
            # everybody locks the batch before its items, so nobody waits in a circle
            session.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update())
            stored = store_results(session, batch_id, self.worker, results)
            taken = [result for result in results if result.line in stored]
            if not taken:
                return []
            for result in taken:
                publish(session, result.files)
            count_results(session, batch_id, taken)
        return [result.line for result in taken]

    def release(
        self, batch_id: str, lines: Sequence[int], *, delay_s: float = 0.0, counts: bool = False
    ) -> None:
        """Give lines back unfinished.

        Args:
            batch_id: The batch.
            lines: Its lines that this worker holds.
            delay_s: How long nobody should take them, in seconds.
            counts: Whether the try counts; not so where the line is not to blame.
        """
        mine = (BatchItem.batch_id == batch_id) & (BatchItem.lease_token == self.worker)
        with self._database.write(is_durable=False) as session:
            session.execute(
                update(BatchItem)
                .where(mine, BatchItem.line.in_(lines), in_state("leased"))
                .values(
                    state="pending",
                    tries=BatchItem.tries - (0 if counts else 1),
                    not_before=now_s() + delay_s,
                    lease_token=None,
                    lease_expires_at=None,
                )
                .execution_options(synchronize_session=False)
            )

    def release_all(self) -> None:
        """Give back whatever this worker holds, because it ends."""
        mine = BatchItem.batch_id.in_(_ids_of_running()) & in_state("leased")
        with self._database.write(is_durable=False) as session:
            session.execute(
                update(BatchItem)
                .where(mine, BatchItem.lease_token == self.worker)
                .values(
                    state="pending",
                    tries=BatchItem.tries - 1,
                    lease_token=None,
                    lease_expires_at=None,
                )
                .execution_options(synchronize_session=False)
            )

    def reclaim(self) -> tuple[int, bool]:
        """Take lines back from workers that fell silent.

        Returns:
            How many were taken back, and whether a suspicious line waits for a worker that has
            nothing else in hand.
        """
        running = BatchItem.batch_id.in_(_ids_of_running())
        silent = running & in_state("leased") & (BatchItem.lease_expires_at < now_s())
        suspicious = exists().where(running, in_state("pending"), _is_suspicious())
        with self._database.read() as session:
            if not session.scalar(select(exists().where(silent))):
                return 0, bool(session.scalar(select(suspicious)))
        with self._database.write(is_durable=False) as session:
            rows = session.execute(
                update(BatchItem)
                .where(silent)
                .values(state="pending", lease_token=None, lease_expires_at=None)
                .returning(BatchItem.line)
                .execution_options(synchronize_session=False)
            )
            return len(rows.all()), bool(session.scalar(select(suspicious)))

    def _lease(self, session: Session, batch: Row[Any], chosen: Select[int]) -> list[Item]:
        # a common table, because it is made once and its rows are locked as it is made
        lines = select(chosen.cte("chosen").c.line)
        leased = session.execute(
            update(BatchItem)
            .where(BatchItem.batch_id == batch.batch_id, BatchItem.line.in_(lines))
            .values(
                state="leased",
                tries=BatchItem.tries + 1,
                lease_token=self.worker,
                lease_expires_at=now_s() + self.lease_s,
            )
            .returning(
                BatchItem.line,
                BatchItem.custom_id,
                BatchItem.start,
                BatchItem.num_bytes,
                BatchItem.tries,
            )
            .execution_options(synchronize_session=False)
        ).all()
        return [
            Item(**batch._asdict(), **row._asdict())
            for row in sorted(leased, key=attrgetter("line"))
        ]


def _is_suspicious() -> ColumnElement[bool]:
    # written out, or SQLite would not know that its partial index fits
    return BatchItem.tries >= literal(SUSPICIOUS_TRIES, literal_execute=True)


def _is_due() -> ColumnElement[bool]:
    return in_state("pending") & (BatchItem.not_before <= now_s())


def _ids_of_running() -> Select[str]:
    return select(Batch.id).where(Batch.status == "in_progress")


def _next_batch(due: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    other = aliased(Batch)
    owner_last_served = (
        select(func.max(other.last_leased_at))
        .where(other.owner == Batch.owner, other.status == "in_progress")
        .scalar_subquery()
    )
    return (
        select(
            Batch.id.label("batch_id"),
            Batch.owner,
            Batch.endpoint,
            Batch.results,
            Batch.output_expires_after_s,
            File.path.label("input_path"),
        )
        .join(File, File.id == Batch.input_file_id)
        .where(
            Batch.status == "in_progress",
            Batch.expires_at > now_s(),
            exists().where(BatchItem.batch_id == Batch.id, due),
        )
        .order_by(owner_last_served, Batch.last_leased_at, Batch.created_at)
        .limit(1)
    )


def _mark_served(session: Session, batch_id: str) -> bool:
    rows = session.execute(
        update(Batch)
        .where(Batch.id == batch_id, Batch.status == "in_progress")
        .values(last_leased_at=now_s())
        .returning(Batch.id)
        .execution_options(synchronize_session=False)
    )
    return rows.first() is not None
