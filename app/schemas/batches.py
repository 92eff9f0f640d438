"""The wire of files and batches: what clients send and what they get."""

from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.batches.batches import ENDPOINTS
from app.storage.tables import Batch, File, WebhookDelivery

MIN_LIFETIME_S = 3600
MAX_LIFETIME_S = 2_592_000

Words = Annotated[str, StringConstraints(max_length=512)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
DeliveryState = Literal["pending", "delivered", "failed"]


class ExpiresAfter(BaseModel):
    """When a file is deleted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    anchor: Literal["created_at"] = Field(description="Counted from the file's creation.")
    seconds: int = Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S, description="How long it lives.")


class BatchRequest(BaseModel):
    """Body of `POST /v1/batches`. `results` and `webhook_url` are ours (`extra_body`)."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "input_file_id": "file-0123456789abcdef01234567",
                    "endpoint": "/v1/images/generations",
                    "completion_window": "24h",
                }
            ]
        },
    )

    input_file_id: str = Field(
        max_length=64, description='A JSONL file that was uploaded with purpose "batch".'
    )
    endpoint: str = Field(
        max_length=100, description=f"What every line is a request to: {' or '.join(ENDPOINTS)}."
    )
    completion_window: str = Field(
        max_length=16,
        description='Time until what is unfinished expires: "24h", or another number of s, m, h '
        "or d.",
    )
    metadata: dict[Name, Words] | None = Field(
        None, max_length=16, description="Up to 16 words of yours, kept and shown."
    )
    output_expires_after: ExpiresAfter | None = Field(
        None, description="When output and error file are deleted; by default never."
    )
    results: Literal["b64_json", "file_id"] = Field(
        "b64_json",
        description='How pictures stand in the output file: "b64_json" as the endpoint answers, '
        '"file_id" each as a file of its own, for large batches.',
    )
    webhook_url: str | None = Field(
        None, max_length=2000, description="Who is told, by a signed webhook, when it has ended."
    )


class FileObject(BaseModel):
    """A file."""

    id: str = Field(description="What to call it by.")
    object: Literal["file"] = "file"
    bytes: int = Field(description="Its size.")
    created_at: int = Field(description="Unix seconds.")
    expires_at: int | None = Field(description="When it is deleted, in Unix seconds; null: never.")
    filename: str = Field(description="What its owner calls it.")
    purpose: str = Field(description="What it is for.")
    status: Literal["processed"] = "processed"


class FileDeleted(BaseModel):
    """Answer of `DELETE /v1/files/{file_id}`."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileList(BaseModel):
    """Answer of `GET /v1/files`."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class RequestCounts(BaseModel):
    """How many lines are how far."""

    total: int
    completed: int
    failed: int


class BatchError(BaseModel):
    """What is wrong with the input file."""

    code: str | None
    line: int | None = Field(description="Line of the input file, from 1.")
    message: str | None
    param: str | None


class BatchErrors(BaseModel):
    """What is wrong with the input file; the first hundred findings."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchObject(BaseModel):
    """A batch."""

    id: str = Field(description="What to call it by.")
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = Field(description="The model that its lines name.")
    errors: BatchErrors | None = Field(description="Why its status is `failed`.")
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = Field(description="Results of lines that succeeded.")
    error_file_id: str | None = Field(description="Results of lines that failed or were not run.")
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    results: str = Field(description="How pictures stand in the output file.")


class BatchList(BaseModel):
    """Answer of `GET /v1/batches`."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Delivery(BaseModel):
    """An event that is told, and how that goes."""

    id: str = Field(description="The event's id, the same in every try.")
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event: str = Field(description="What happened.")
    url: str = Field(description="Who is told.")
    state: DeliveryState
    tries: int
    created_at: int
    next_try_at: int | None = Field(description="Unix seconds; null if there is none.")
    last_status: int | None = Field(description="HTTP status of the last answer.")
    last_error: str | None = Field(description="Why the last try failed.")
    delivered_at: int | None


class DeliveryList(BaseModel):
    """Answer of `GET /v1/batches/{batch_id}/webhook_deliveries`."""

    object: Literal["list"] = "list"
    data: list[Delivery]


def to_file_object(file: File) -> FileObject:
    """Turn a row into what a client sees.

    Args:
        file: The row.
    """
    return FileObject(
        id=file.id,
        bytes=file.num_bytes,
        created_at=int(file.created_at),
        expires_at=_whole(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
    )


def to_batch_object(batch: Batch) -> BatchObject:
    """Turn a row into what a client sees.

    Args:
        batch: The row.
    """
    errors = [BatchError.model_validate(error) for error in batch.errors or ()]
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchErrors(data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=cast(BatchStatus, batch.status),  # the database checks it
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=int(batch.created_at),
        in_progress_at=_whole(batch.in_progress_at),
        expires_at=int(batch.expires_at),
        finalizing_at=_whole(batch.finalizing_at),
        completed_at=_whole(batch.completed_at),
        failed_at=_whole(batch.failed_at),
        expired_at=_whole(batch.expired_at) if batch.status == "expired" else None,
        cancelling_at=_whole(batch.cancelling_at),
        cancelled_at=_whole(batch.cancelled_at),
        request_counts=RequestCounts(
            total=batch.num_total, completed=batch.num_completed, failed=batch.num_failed
        ),
        metadata=batch.details,
        results=batch.results,
    )


def to_delivery(row: WebhookDelivery) -> Delivery:
    """Turn a row into what a client sees.

    Args:
        row: The row.
    """
    return Delivery(
        id=row.id,
        event=row.event,
        url=row.url,
        state=cast(DeliveryState, row.state),  # the database checks it
        tries=row.tries,
        created_at=int(row.created_at),
        next_try_at=int(row.next_try_at) if row.state == "pending" else None,
        last_status=row.last_status,
        last_error=row.last_error,
        delivered_at=_whole(row.delivered_at),
    )


def _whole(stamp: float | None) -> int | None:
    return None if stamp is None else int(stamp)
