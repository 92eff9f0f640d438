"""Who works on what: lines of batches and stages of batches, lent for a time.

A claim writes the worker's name and an end into the row; a heartbeat moves the end; whoever finds
an end in the past gives the row to others. Painting may happen twice that way. A result cannot be
written twice: `complete` takes it only from the worker whose name still stands in the row.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    bindparam,
    case,
    exists,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session, aliased

from app.storage.database import Database, now_s
from app.storage.files import publish
from app.storage.tables import SUSPICIOUS_TRIES, Batch, BatchItem, File


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


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemResult:
    """Where the result line of a finished item stands in storage.

    Attributes:
        line: The item's line.
        is_success: Whether it goes to the output file or to the error file.
        path: The blob.
        start: Where in it the result line begins, in bytes.
        num_bytes: How long it is.
        files: Pictures that the result names by file id, with their sizes in bytes.
    """

    line: int
    is_success: bool
    path: str
    start: int
    num_bytes: int
    files: Mapping[str, int] = field(default_factory=dict)


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
            batch_id = session.scalar(_next_batch(due))
            # status is asked again by the update itself: a cancel may have come in between
            if batch_id is None or not _mark_served(session, batch_id):
                return []
            pending = (
                select(BatchItem.line)
                .where(BatchItem.batch_id == batch_id, _is_due())
                .order_by(BatchItem.line)
                .with_for_update(skip_locked=True)
            )
            if is_idle:
                alone = session.scalars(pending.where(_is_suspicious()).limit(1)).all()
                if alone:
                    return self._lease(session, batch_id, alone)
            group = (
                select(BatchItem.group_key)
                .where(BatchItem.batch_id == batch_id, _is_due(), ~_is_suspicious())
                .order_by(BatchItem.line)
                .limit(1)
                .scalar_subquery()
            )
            alike = pending.where(~_is_suspicious(), BatchItem.group_key == group)
            lines = session.scalars(alike.limit(limit)).all()
            return self._lease(session, batch_id, lines) if lines else []

    def extend(self, lines: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """Give lines that this worker holds a full lease again: the heartbeat.

        Args:
            lines: Batch and line of what is being worked on.

        Returns:
            Which of them it still holds; the others it must drop.
        """
        asked = tuple_(BatchItem.batch_id, BatchItem.line).in_(sorted(lines))
        held = (BatchItem.state == "leased") & (BatchItem.lease_token == self.worker)
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
            held = session.scalars(
                select(BatchItem.line)
                .where(
                    BatchItem.batch_id == batch_id,
                    BatchItem.line.in_([result.line for result in results]),
                    BatchItem.state == "leased",
                    BatchItem.lease_token == self.worker,
                )
                .with_for_update()
            ).all()
            taken = [result for result in results if result.line in set(held)]
            if not taken:
                return []
            _store_results(session, batch_id, taken)
            for result in taken:
                publish(session, result.files)
            _count_results(session, batch_id, taken)
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
                .where(mine, BatchItem.line.in_(lines), BatchItem.state == "leased")
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
        mine = BatchItem.batch_id.in_(_ids_of_running()) & (BatchItem.state == "leased")
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
        silent = running & (BatchItem.state == "leased") & (BatchItem.lease_expires_at < now_s())
        suspicious = exists().where(running, BatchItem.state == "pending", _is_suspicious())
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

    def _lease(self, session: Session, batch_id: str, lines: Sequence[int]) -> list[Item]:
        leased = session.execute(
            update(BatchItem)
            .where(BatchItem.batch_id == batch_id, BatchItem.line.in_(lines))
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
        batch = session.execute(
            select(
                Batch.owner,
                Batch.endpoint,
                Batch.results,
                Batch.output_expires_after_s,
                File.path.label("input_path"),
            )
            .join(File, File.id == Batch.input_file_id)
            .where(Batch.id == batch_id)
        ).one()
        return [
            Item(batch_id=batch_id, **batch._asdict(), **row._asdict())
            for row in sorted(leased, key=attrgetter("line"))
        ]


def _is_suspicious() -> ColumnElement[bool]:
    # written out, or SQLite would not know that its partial index fits
    return BatchItem.tries >= literal(SUSPICIOUS_TRIES, literal_execute=True)


def _is_due() -> ColumnElement[bool]:
    return (BatchItem.state == "pending") & (BatchItem.not_before <= now_s())


def _ids_of_running() -> Select[str]:
    return select(Batch.id).where(Batch.status == "in_progress")


def _next_batch(due: ColumnElement[bool]) -> Select[str]:
    other = aliased(Batch)
    owner_last_served = (
        select(func.max(other.last_leased_at))
        .where(other.owner == Batch.owner, other.status == "in_progress")
        .scalar_subquery()
    )
    return (
        select(Batch.id)
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


def _store_results(session: Session, batch_id: str, results: Sequence[ItemResult]) -> None:
    items = BatchItem.__table__
    assert isinstance(items, Table)
    session.connection().execute(
        update(items)
        .where(items.c.batch_id == batch_id, items.c.line == bindparam("at_line"))
        .values(
            state=bindparam("new_state"),
            result_path=bindparam("path"),
            result_start=bindparam("at"),
            result_num_bytes=bindparam("size"),
            lease_token=None,
            lease_expires_at=None,
        ),
        [
            {
                "at_line": result.line,
                "new_state": "completed" if result.is_success else "failed",
                "path": result.path,
                "at": result.start,
                "size": result.num_bytes,
            }
            for result in results
        ],
    )


def _count_results(session: Session, batch_id: str, results: Sequence[ItemResult]) -> None:
    num_completed = sum(result.is_success for result in results)
    num_failed = len(results) - num_completed
    done = Batch.num_completed + Batch.num_failed + len(results)
    is_last = (Batch.status == "in_progress") & (done == Batch.num_total)
    session.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            num_completed=Batch.num_completed + num_completed,
            num_failed=Batch.num_failed + num_failed,
            status=case((is_last, "finalizing"), else_=Batch.status),
            finalizing_at=case((is_last, now_s()), else_=Batch.finalizing_at),
        )
        .execution_options(synchronize_session=False)
    )
