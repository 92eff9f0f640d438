"""What happens to a batch before its lines are painted and after: checked, ended, cleaned up.

Each stage is leased like a line is, by name and time in the batch's row. A heartbeat keeps the
lease, every transaction looks whether it stands, so one that lost it stops at its next write, and
each can be begun again by another worker at any point: validation starts over, ending writes new
files, cleaning cleans.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import Any

import structlog
from sqlalchemy import and_, delete, insert, or_, select, text, update
from sqlalchemy.orm import Session

from app.batches.batches import OUTPUT_PURPOSE
from app.batches.input import InputCheck, Line, LineError
from app.batches.leftovers import Leftovers
from app.batches.output import OutputFiles, Produced, items_in_order
from app.batches.webhooks import WebhookOutbox
from app.storage.blobs import StorageUnavailableError
from app.storage.database import Database, now_s
from app.storage.files import ENDED, Files
from app.storage.tables import Batch, BatchItem, File, in_state
from core.errors import FewstrokeError, ShuttingDownError

INSERT_LINES = 1000

GIVEN_BACK_FOR_S = 2.0
"""Seconds until a stage that failed is begun again."""

ANALYZE_LINES = 1000
"""So many new rows PostgreSQL is told of at once, or it scans them all at every claim."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LeaseLostError(FewstrokeError):
    """Somebody else has this work by now; what was done of it is dropped."""

    code = "lease_lost"
    retryable = True


@dataclass(frozen=True, kw_only=True, slots=True)
class StageLimits:
    """What an input file may hold.

    Attributes:
        max_lines: Most lines of a batch.
        max_line_bytes: Longest line, in bytes.
    """

    max_lines: int
    max_line_bytes: int


class Stages:
    """Validates, ends and cleans up batches.

    Args:
        database: Where the rows are.
        files: Where the bytes are.
        outbox: Takes what is to be told when a batch has ended.
        worker: This process's name.
        lease_s: How long a stage that falls silent stays with its worker, in seconds.
        limits: What an input file may hold.
    """

    def __init__(
        self,
        database: Database,
        files: Files,
        outbox: WebhookOutbox,
        *,
        worker: str,
        lease_s: float,
        limits: StageLimits,
    ) -> None:
        self._database = database
        self._files = files
        self._outbox = outbox
        self._worker = worker
        self._leftovers = Leftovers(database, files.store)
        self._lease_s = lease_s
        self._limits = limits
        self._stopping = Event()
        self._running: str | None = None  # the batch whose stage is being done

    def stop(self) -> None:
        """Give back the stage that is being done, at its next write."""
        self._stopping.set()

    def keep(self) -> None:
        """Extend the lease of the stage that is being done, if it is still ours."""
        batch_id = self._running
        if batch_id is None:
            return
        with self._database.write(is_durable=False) as session:
            session.execute(
                update(Batch)
                .where(Batch.id == batch_id, Batch.lease_token == self._worker)
                .values(lease_expires_at=now_s() + self._lease_s)
                .execution_options(synchronize_session=False)
            )

    def run_next(self) -> bool:
        """Do the next stage of the batch that waited longest for one.

        Returns:
            Whether there was anything to do. Where storage or database fail, the stage is given
            back and their error raised.
        """
        batch = self._claim()
        if batch is None:
            return False
        is_over = False
        self._running = batch.id
        try:
            self._run(batch)
            is_over = True
        except LeaseLostError:
            log.info("stage_lost", batch=batch.id, status=batch.status)
            is_over = True
        finally:
            self._running = None
            if not is_over:
                self._give_back(batch)
        return True

    def _run(self, batch: Batch) -> None:
        log.info("stage", batch=batch.id, status=batch.status)
        if batch.status in ENDED:
            self._clean(batch)
        elif batch.status == "validating":
            self._validate(batch)
        else:
            self._end(batch)

    def _claim(self) -> Batch | None:
        is_free = or_(Batch.lease_expires_at.is_(None), Batch.lease_expires_at < now_s())
        is_overdue = and_(
            Batch.status.in_(("validating", "in_progress")), Batch.expires_at <= now_s()
        )
        needs_work = or_(
            Batch.status.in_(("validating", "finalizing", "cancelling")),
            is_overdue,
            and_(Batch.status.in_(ENDED), Batch.cleaned_at.is_(None)),
        )
        waiting = select(Batch.id).where(needs_work, is_free).limit(1)
        with self._database.read() as session:
            if session.scalar(waiting) is None:
                return None
        with self._database.write() as session:
            row = session.execute(
                select(Batch, is_overdue.label("is_overdue"))
                .where(needs_work, is_free)
                .order_by(Batch.status.in_(ENDED), Batch.created_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            if row is None:
                return None
            batch: Batch = row.Batch
            if row.is_overdue:  # by the database's clock, not by ours
                batch.status = "finalizing"
                batch.finalizing_at = batch.expired_at = time.time()
            session.execute(
                update(Batch)
                .where(Batch.id == batch.id)
                .values(lease_token=self._worker, lease_expires_at=now_s() + self._lease_s)
                .execution_options(synchronize_session=False)
            )
        return batch

    def _give_back(self, batch: Batch) -> None:
        # what failed may fail again at once; what was stopped will not
        delay_s = 0.0 if self._stopping.is_set() else GIVEN_BACK_FOR_S
        with self._database.write(is_durable=False) as session:
            session.execute(
                update(Batch)
                .where(Batch.id == batch.id, Batch.lease_token == self._worker)
                .values(lease_token=None, lease_expires_at=now_s() + delay_s)
            )

    def _renew(self, session: Session, batch: Batch, **changes: Any) -> None:  # noqa: ANN401
        # the guard of every write: only who still holds the stage changes the batch
        if self._stopping.is_set():
            raise ShuttingDownError("This worker is shutting down.")
        rows = session.execute(
            update(Batch)
            .where(
                Batch.id == batch.id,
                Batch.lease_token == self._worker,
                Batch.status == batch.status,
            )
            .values(**({"lease_expires_at": now_s() + self._lease_s} | changes))
            .returning(Batch.id)
            .execution_options(synchronize_session=False)
        )
        if rows.first() is None:
            raise LeaseLostError(f"Another worker has {batch.id}.")

    def _validate(self, batch: Batch) -> None:
        with self._database.write(is_durable=False) as session:
            self._renew(session, batch)
            session.execute(delete(BatchItem).where(BatchItem.batch_id == batch.id))
            path = session.scalar(select(File.path).where(File.id == batch.input_file_id))
        if not path:
            self._fail(batch, [_input_is_gone(batch)])
            return
        with self._files.reading(path) as stream:
            check = InputCheck(
                stream,
                endpoint=batch.endpoint,
                max_lines=self._limits.max_lines,
                max_line_bytes=self._limits.max_line_bytes,
            )
            num_total = self._insert(batch, check.lines())
        if check.errors:
            self._fail(batch, check.errors)
            return
        with self._database.write() as session:
            self._renew(
                session,
                batch,
                status="in_progress",
                model=check.model,
                num_total=num_total,
                in_progress_at=time.time(),
                lease_token=None,
                lease_expires_at=None,
            )
            if num_total >= ANALYZE_LINES and not self._database.is_sqlite:
                session.execute(text(f"ANALYZE {BatchItem.__tablename__}"))

    def _insert(self, batch: Batch, lines: Iterator[Line]) -> int:
        num_total = 0
        while some := list(islice(lines, INSERT_LINES)):
            with self._database.write(is_durable=False) as session:
                self._renew(session, batch)
                session.execute(
                    insert(BatchItem),
                    [
                        {
                            "batch_id": batch.id,
                            "line": line.number,
                            "custom_id": line.custom_id,
                            "start": line.start,
                            "num_bytes": line.num_bytes,
                            "group_key": line.group_key,
                            "state": "pending",
                        }
                        for line in some
                    ],
                )
            num_total += len(some)
        return num_total

    def _fail(self, batch: Batch, errors: Sequence[LineError]) -> None:
        described = [
            {"code": e.code, "line": e.line, "message": e.message, "param": e.param} for e in errors
        ]
        with self._database.write() as session:
            session.execute(delete(BatchItem).where(BatchItem.batch_id == batch.id))
            self._renew(
                session,
                batch,
                status="failed",
                errors=described,
                failed_at=time.time(),
                lease_token=None,
                lease_expires_at=None,
            )
            self._outbox.add(session, batch, "batch.failed")

    def _end(self, batch: Batch) -> None:
        final, unfinished = _ending(batch)
        with self._database.write() as session:
            self._renew(session, batch)
            # what is being painted now comes too late: its worker's name goes from the row
            session.execute(
                update(BatchItem)
                .where(BatchItem.batch_id == batch.id, in_state("leased"))
                .values(state="pending", lease_token=None, lease_expires_at=None)
            )
            if batch.in_progress_at is None:  # its lines were never all known
                session.execute(delete(BatchItem).where(BatchItem.batch_id == batch.id))
        output = OutputFiles(self._files.store, batch.id)
        try:
            self._write_outputs(batch, output, final, unfinished)
        except (LeaseLostError, StorageUnavailableError):
            # nothing names these files: whoever ends the batch writes files of their own
            self._files.store.remove(output.folder)
            raise

    def _write_outputs(
        self, batch: Batch, output: OutputFiles, final: str, unfinished: dict[str, str]
    ) -> None:
        with output:
            for rows in items_in_order(self._database, batch.id):
                for row in rows:
                    output.add(row, unfinished)
                with self._database.write(is_durable=False) as session:
                    self._renew(session, batch)
            produced = output.close()
        with self._database.write() as session:
            self._renew(
                session,
                batch,
                status=final,
                **({} if final == "expired" else {f"{final}_at": time.time()}),
                **{f"{name}_file_id": file.id for name, file in produced.items()},
                lease_token=None,
                lease_expires_at=None,
            )
            for name, file in produced.items():
                session.add(_file_row(batch, name, file))
            self._outbox.add(session, batch, f"batch.{final}")

    def _clean(self, batch: Batch) -> None:
        self._leftovers.remove_segments(batch)
        self._leftovers.remove_attempts(batch)
        with self._database.write() as session:
            self._renew(
                session,
                batch,
                cleaned_at=time.time(),
                lease_token=None,
                lease_expires_at=None,
            )
            session.execute(delete(BatchItem).where(BatchItem.batch_id == batch.id))


def _ending(batch: Batch) -> tuple[str, dict[str, str]]:
    if batch.status == "cancelling":
        return "cancelled", {
            "code": "batch_cancelled",
            "message": "The batch was cancelled before this request was run.",
        }
    if batch.expired_at is not None:
        return "expired", {
            "code": "batch_expired",
            "message": "This request could not be run before the completion window ended.",
        }
    return "completed", {}


def _input_is_gone(batch: Batch) -> LineError:
    return LineError(
        code="invalid_input_file",
        message=f"The input file {batch.input_file_id} was deleted before it was read.",
        param="input_file_id",
    )


def _file_row(batch: Batch, name: str, file: Produced) -> File:
    now = time.time()
    after_s = batch.output_expires_after_s
    return File(
        id=file.id,
        owner=batch.owner,
        purpose=OUTPUT_PURPOSE,
        filename=f"{batch.id}_{name}.jsonl",
        num_bytes=file.num_bytes,
        path=file.path,
        created_at=now,
        expires_at=None if after_s is None else now + after_s,
    )
