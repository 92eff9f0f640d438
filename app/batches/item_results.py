"""Write what came of lines into the queue: all results of a call in one statement."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    FromClause,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from app.storage.database import now_s
from app.storage.tables import Batch, BatchItem, in_state

FIELDS: dict[str, TypeEngine[Any]] = {
    "line": BigInteger(),
    "state": Text(),
    "path": Text(),
    "start": BigInteger(),
    "num_bytes": BigInteger(),
}
"""What a result writes, as the database reads it."""


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


def store_results(
    session: Session, batch_id: str, worker: str, results: Sequence[ItemResult]
) -> set[int]:
    """Write results into the lines that a worker holds.

    Args:
        session: The transaction.
        batch_id: The batch.
        worker: The worker that has them.
        results: Results whose bytes are in storage already.

    Returns:
        Lines that the worker still held; the others are as they were.
    """
    given = _as_table(session, results)
    stored = session.scalars(
        update(BatchItem)
        .where(
            BatchItem.batch_id == batch_id,
            BatchItem.line == given.c.line,
            in_state("leased"),
            BatchItem.lease_token == worker,
        )
        .values(
            state=given.c.state,
            result_path=given.c.path,
            result_start=given.c.start,
            result_num_bytes=given.c.num_bytes,
            lease_token=None,
            lease_expires_at=None,
        )
        .returning(BatchItem.line)
        .execution_options(synchronize_session=False)
    )
    return set(stored)


def count_results(session: Session, batch_id: str, results: Sequence[ItemResult]) -> None:
    """Count results in their batch, and have it finalised if they are the last.

    Args:
        session: The transaction.
        batch_id: The batch.
        results: Results that were written.
    """
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


def _as_table(session: Session, results: Sequence[ItemResult]) -> FromClause:
    # one statement whatever their number, which neither database has to plan anew
    rows = [
        {
            "line": result.line,
            "state": "completed" if result.is_success else "failed",
            "path": result.path,
            "start": result.start,
            "num_bytes": result.num_bytes,
        }
        for result in results
    ]
    content = bindparam("results", json.dumps(rows), Text)
    if session.get_bind().dialect.name == "postgresql":
        records = func.json_to_recordset(cast(content, JSON))
        fields = [column(name, of_type) for name, of_type in FIELDS.items()]
        return records.table_valued(*fields).render_derived("given", with_types=True)
    # materialised, or SQLite reads the JSON anew for every line that is leased
    each = func.json_each(content).table_valued("value")
    return (
        select(
            *(
                func.json_extract(each.c.value, f"$.{name}", type_=of_type).label(name)
                for name, of_type in FIELDS.items()
            )
        )
        .cte("given")
        .prefix_with("MATERIALIZED")
    )
