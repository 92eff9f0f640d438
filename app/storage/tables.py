"""The tables of the service. Times are Unix seconds; states are words, checked by the database.

    file               an uploaded or produced file; its bytes lie in storage
    batch              a job over one input file
    batch_item         one line of that file, leased to a worker, then pointing at its result
    webhook_delivery   an event that somebody has to be told, and how that went
    api_key            who may ask, how much, and how much of that is used
    idempotent_answer  an Idempotency-Key: being worked on, or answered
    secret             what all replicas must share, and nobody else may know

A change here needs a migration in `app/storage/migrations/versions`; a test compares the two.
"""

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    literal,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BATCH_STATES = (
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)
ITEM_STATES = ("pending", "leased", "completed", "failed")
DELIVERY_STATES = ("pending", "delivered", "failed")

SUSPICIOUS_TRIES = 2
"""A line that took down so many workers is painted alone from then on, so that only it fails."""


class Table(DeclarativeBase):
    """What all tables share: one metadata, and constraint names that migrations can rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: BigInteger,
        float: Double,
        dict[str, Any]: JSON,
        list[dict[str, Any]]: JSON,
    }


def _one_of(column: str, words: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_is_known")


def _lines_where(name: str, condition: str) -> Index:
    where = text(condition)
    columns = ("batch_id", "line")
    return Index(f"ix_batch_item_{name}", *columns, sqlite_where=where, postgresql_where=where)


class File(Table):
    """A file as `/v1/files` shows it; `path` says where in storage its bytes lie."""

    __tablename__ = "file"
    __table_args__ = (Index(None, "owner", "created_at", "id"), Index(None, "expires_at"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    purpose: Mapped[str] = mapped_column(String(32))
    filename: Mapped[str] = mapped_column(Text)
    num_bytes: Mapped[int]
    path: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    deleted_at: Mapped[float | None]


class Batch(Table):
    """A batch as `/v1/batches` shows it, and what its workers must know.

    `lease_*` belong to whoever validates or finalises it; `last_leased_at` is what makes batches
    take turns.
    """

    __tablename__ = "batch"
    __table_args__ = (
        _one_of("status", BATCH_STATES),
        Index(None, "owner", "created_at", "id"),
        Index(None, "status"),
        Index(None, "input_file_id"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    endpoint: Mapped[str] = mapped_column(String(64))
    input_file_id: Mapped[str] = mapped_column(ForeignKey("file.id"))
    completion_window: Mapped[str] = mapped_column(String(16))
    results: Mapped[str] = mapped_column(String(16))
    details: Mapped[dict[str, Any] | None]
    output_expires_after_s: Mapped[int | None]
    webhook_url: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    model: Mapped[str | None] = mapped_column(Text)
    errors: Mapped[list[dict[str, Any]] | None]
    output_file_id: Mapped[str | None] = mapped_column(String(64))
    error_file_id: Mapped[str | None] = mapped_column(String(64))
    num_total: Mapped[int] = mapped_column(default=0)
    num_completed: Mapped[int] = mapped_column(default=0)
    num_failed: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    expires_at: Mapped[float]
    in_progress_at: Mapped[float | None]
    cancelling_at: Mapped[float | None]
    finalizing_at: Mapped[float | None]
    completed_at: Mapped[float | None]
    failed_at: Mapped[float | None]
    expired_at: Mapped[float | None]
    cancelled_at: Mapped[float | None]
    cleaned_at: Mapped[float | None]
    last_leased_at: Mapped[float] = mapped_column(default=0.0)
    lease_token: Mapped[str | None] = mapped_column(String(96))
    lease_expires_at: Mapped[float | None]


class BatchItem(Table):
    """One line of a batch's input file.

    `start` and `num_bytes` say where the line stands in the input file; `result_*` where its
    result line stands in storage. `tries` counts leases. `group_key` is equal for items that the
    engine paints in one forward pass.
    """

    __tablename__ = "batch_item"
    __table_args__ = (
        UniqueConstraint("batch_id", "custom_id"),
        _one_of("state", ITEM_STATES),
        _lines_where("pending", "state = 'pending'"),
        _lines_where("leased", "state = 'leased'"),
        _lines_where("suspicious", f"tries >= {SUSPICIOUS_TRIES}"),
    )

    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    custom_id: Mapped[str] = mapped_column(Text)
    start: Mapped[int]
    num_bytes: Mapped[int]
    group_key: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    tries: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[float] = mapped_column(default=0.0)
    lease_token: Mapped[str | None] = mapped_column(String(96))
    lease_expires_at: Mapped[float | None]
    result_path: Mapped[str | None] = mapped_column(Text)
    result_start: Mapped[int | None]
    result_num_bytes: Mapped[int | None]


def in_state(state: str) -> ColumnElement[bool]:
    """Return the condition that a line of a batch is in a state.

    Args:
        state: One of ITEM_STATES; written out, or SQLite would not know that a partial index fits.
    """
    return BatchItem.state == literal(state, literal_execute=True)


class WebhookDelivery(Table):
    """One event to one address, with how the last attempt went."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (_one_of("state", DELIVERY_STATES), Index(None, "state", "next_try_at"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    event: Mapped[str] = mapped_column(String(64))
    url: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    tries: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    next_try_at: Mapped[float]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    delivered_at: Mapped[float | None]


class ApiKey(Table):
    """A key; of its secret part only the SHA-256 is here.

    The `*_full_at` say when the bucket of that limit is full again (see `app/access/quotas.py`).
    """

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    is_admin: Mapped[bool]
    requests_per_minute: Mapped[int | None]
    quota_units: Mapped[float | None]
    quota_window_s: Mapped[int]
    max_priority: Mapped[int]
    rate_full_at: Mapped[float] = mapped_column(default=0.0)
    quota_full_at: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class IdempotentAnswer(Table):
    """What was answered under an Idempotency-Key; without a `path`, somebody is at work on it."""

    __tablename__ = "idempotent_answer"
    __table_args__ = (Index(None, "expires_at"),)

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    lease_token: Mapped[str] = mapped_column(String(96))
    lease_expires_at: Mapped[float]
    expires_at: Mapped[float]
    path: Mapped[str | None] = mapped_column(Text)
    media_type: Mapped[str | None] = mapped_column(String(64))


class Secret(Table):
    """Random bytes that the first server made and the others read, in base64."""

    __tablename__ = "secret"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
