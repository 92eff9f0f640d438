"""One line of a batch: from its bytes to its result line, and what a failure means for it."""

import base64
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.batches.batches import OUTPUT_PURPOSE
from app.batches.input import LineError, parse_line
from app.batches.leases import Item
from app.batches.output import failure_body, result_line
from app.errors import QuotaExceededError, error_body, status_of
from app.storage.files import Files
from core.errors import (
    CapacityError,
    DeviceMemoryError,
    FewstrokeError,
    GenerationCancelledError,
    ShuttingDownError,
)

MAX_FAILURES = 3
"""Tries of a line that fails by a bug or for want of memory, before that is its result."""

DRAWN_SEED_BELOW = 2**32

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request that stands in a line of a batch.

    Attributes:
        endpoint: What it is a request to.
        body: Its body, not yet checked.
        owner: Who asks.
        request_id: Its name in the log.
    """

    endpoint: str
    body: Mapping[str, Any]
    owner: str
    request_id: str


Answer = Callable[[Call], Coroutine[Any, Any, Mapping[str, Any]]]
"""Answers one request as the endpoint itself would; raises what the endpoint would refuse with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A line with its result.

    Attributes:
        item: The line.
        content: The result line.
        is_success: Whether it goes to the output file.
        files: Pictures that it names by file id, with their sizes in bytes.
    """

    item: Item
    content: bytes
    is_success: bool
    files: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Postponed:
    """A line that is given back to be tried again.

    Attributes:
        item: The line.
        delay_s: When, in seconds from now.
        counts: Whether the try counts.
    """

    item: Item
    delay_s: float
    counts: bool


def read_lines(files: Files, items: Sequence[Item]) -> list[bytes]:
    """Read the lines of one batch.

    Args:
        files: Where the input file is.
        items: Lines of one batch.

    Returns:
        Their bytes.
    """
    with files.reading(items[0].input_path) as stream:
        found = []
        for item in items:
            stream.seek(item.start)
            found.append(stream.read(item.num_bytes))
    return found


def to_call(item: Item, raw: bytes) -> Call:
    """Turn a line into the request that it is.

    A picture without a seed gets one that follows from batch and line: whoever paints it, and
    however often, it is the same picture.

    Args:
        item: The line.
        raw: Its bytes. LineError is raised where they are no longer what validation saw.

    Returns:
        The request.
    """
    body = dict(parse_line(raw, item.line)["body"])
    digest = hashlib.sha256(f"{item.batch_id}\n{item.custom_id}".encode()).digest()
    if item.endpoint == "/v1/images/generations" and body.get("seed") is None:
        body["seed"] = int.from_bytes(digest[:8]) % DRAWN_SEED_BELOW
    return Call(
        endpoint=item.endpoint,
        body=body,
        owner=item.owner,
        request_id=f"req_{digest.hex()[:32]}",
    )


def to_finished(item: Item, body: Mapping[str, Any], files: Files, public_url: str) -> Finished:
    """Turn the answer to a line into its result; blocks where pictures become files.

    Args:
        item: The line.
        body: The answer.
        files: Where pictures go if the batch wants file ids.
        public_url: What the address of a file begins with.

    Returns:
        The result.
    """
    stored: dict[str, int] = {}
    if item.results == "file_id" and isinstance(body.get("data"), list):
        pictures, stored = _as_files(item, body, files, public_url)
        body = dict(body) | {"data": pictures}
    content = result_line(item.batch_id, item.custom_id, status=200, body=body)
    return Finished(item=item, content=content, is_success=True, files=stored)


def to_outcome(item: Item, error: BaseException) -> Finished | Postponed:
    """Decide what a failure means: the line's result, or another try.

    Args:
        item: The line.
        error: What was raised.

    Returns:
        The result if trying again would end the same way, or was done often enough.
    """
    if isinstance(error, LineError):
        body = failure_body(
            error.message, kind="invalid_request_error", code=error.code, param=error.param
        )
        return _failed(item, 400, body)
    counts = not isinstance(error, CapacityError | GenerationCancelledError) or isinstance(
        error, DeviceMemoryError
    )
    is_passing = isinstance(error, CapacityError | GenerationCancelledError | ShuttingDownError)
    if isinstance(error, FewstrokeError) and not is_passing:
        return _failed(item, status_of(error)[0], error_body(error))
    if counts and item.tries >= MAX_FAILURES:
        status = status_of(error)[0] if isinstance(error, FewstrokeError) else 500
        return _failed(item, status, error_body(_as_exception(error)))
    if not is_passing:
        log.error("bug", batch=item.batch_id, line=item.line, exc_info=error)
    if isinstance(error, QuotaExceededError):  # which may last for hours
        log.warning("line_waits", batch=item.batch_id, line=item.line, reason=error.message)
    delay_s = error.retry_after_s if isinstance(error, CapacityError) else 1.0
    return Postponed(item=item, delay_s=delay_s, counts=counts)


def give_up(item: Item, max_tries: int) -> Finished:
    """Return the result of a line that took down every worker that painted it.

    Args:
        item: The line.
        max_tries: Workers that it was given.
    """
    message = f"{max_tries} workers ended while they ran this request; it is not tried again."
    return _failed(item, 500, failure_body(message, kind="server_error", code="worker_lost"))


def _failed(item: Item, status: int, body: Mapping[str, Any]) -> Finished:
    content = result_line(item.batch_id, item.custom_id, status=status, body=body)
    return Finished(item=item, content=content, is_success=False)


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def _as_files(
    item: Item, body: Mapping[str, Any], files: Files, public_url: str
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the pictures of an answer as links to files, and each file's size by its id."""
    pictures: list[dict[str, Any]] = []
    stored: dict[str, int] = {}
    for picture in map(dict, body["data"]):
        encoded = picture.pop("b64_json", None)
        if isinstance(encoded, str):
            number = f"_{len(stored)}" if stored else ""
            name = f"{item.custom_id}{number}.{body.get('output_format', 'png')}"
            file_id, size = _store(item, name, base64.b64decode(encoded), files)
            stored[file_id] = size
            picture |= {"file_id": file_id, "url": f"{public_url}/v1/files/{file_id}/content"}
        pictures.append(picture)
    return pictures, stored


def _store(item: Item, name: str, content: bytes, files: Files) -> tuple[str, int]:
    file = files.draft(
        owner=item.owner,
        filename=name,
        purpose=OUTPUT_PURPOSE,
        expires_after_s=item.output_expires_after_s,
    )
    with files.store.writing(file.path) as blob:
        blob.write(content)
    return file.id, len(content)
