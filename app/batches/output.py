"""Results on their way out: segments as workers write them, then the two files of the batch.

A worker writes the result lines that it has at hand as one blob, a segment, and only then says in
the database where each line stands. Ending the batch copies the lines in the order of the input.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import uuid4

from sqlalchemy import select

from app.errors import envelope
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.files import new_file_id
from app.storage.tables import BatchItem

PAGE_LINES = 500
ALL_SEGMENTS = "batches"
"""Folder in storage of what unfinished batches need."""

MAX_OPEN_SEGMENTS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Produced:
    """One of the two files of a batch.

    Attributes:
        id: Its file id.
        path: Where in storage it lies.
        num_bytes: How large it is.
    """

    id: str
    path: str
    num_bytes: int


def write_segment(
    store: BlobStore, batch_id: str, lines: Iterable[bytes]
) -> tuple[str, list[tuple[int, int]]]:
    """Store result lines together.

    Args:
        store: Where blobs go.
        batch_id: The batch.
        lines: Result lines, each with its end.

    Returns:
        Where the blob lies, and for each line where it begins and how long it is, in bytes.
    """
    path = f"{segments_of(batch_id)}/{uuid4().hex}"
    places: list[tuple[int, int]] = []
    with store.writing(path) as blob:
        start = 0
        for line in lines:
            blob.write(line)
            places.append((start, len(line)))
            start += len(line)
    return path, places


def segments_of(batch_id: str) -> str:
    """Return the folder in storage of all that a batch needs until it has ended.

    Args:
        batch_id: The batch.
    """
    return f"{ALL_SEGMENTS}/{batch_id}"


def outputs_of(batch_id: str) -> str:
    """Return the folder in storage of the files that a batch leaves behind.

    Every attempt to write them has a folder of its own in it.

    Args:
        batch_id: The batch.
    """
    return f"outputs/{batch_id}"


def result_line(
    batch_id: str,
    custom_id: str,
    *,
    status: int | None,
    body: Mapping[str, Any] | None,
    error: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a line of an output or error file.

    Args:
        batch_id: The batch.
        custom_id: What the caller calls the line.
        status: HTTP status of its answer; None if it was not run.
        body: The answer.
        error: Why it was not run.

    Returns:
        JSON and a line end. The ids in it are the same whoever writes it, however often.
    """
    digest = hashlib.sha256(f"{batch_id}\n{custom_id}".encode()).hexdigest()
    response = None
    if status is not None:
        response = {"status_code": status, "request_id": f"req_{digest[:32]}", "body": body}
    line = {
        "id": f"batch_req_{digest[32:]}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def failure_body(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return the answer of a line that failed without an exception to tell it.

    Args:
        message: What happened.
        kind: OpenAI's family of errors.
        code: Stable and machine-readable.
        param: The field at fault.
    """
    return envelope(message, kind=kind, param=param, code=code)


class OutputFiles:
    """The output and the error file of a batch, each made when it gets its first line.

    Args:
        store: Where blobs are.
        batch_id: The batch.

    Attributes:
        folder: Where both lie, and nothing else.
    """

    def __init__(self, store: BlobStore, batch_id: str) -> None:
        self.folder = f"{outputs_of(batch_id)}/{uuid4().hex}"
        self._store = store
        self._batch_id = batch_id
        self._open = ExitStack()
        self._streams: dict[str, tuple[str, BinaryIO]] = {}
        self._sizes: dict[str, int] = {}
        self._segments: OrderedDict[str, ExitStack] = OrderedDict()
        self._readers: dict[str, BinaryIO] = {}

    def __enter__(self) -> "OutputFiles":
        return self

    def __exit__(self, *raised: Any) -> None:  # noqa: ANN401
        for segment in self._segments.values():
            segment.close()
        # with what was raised, so that half a file is removed and not kept
        self._open.__exit__(*raised)

    def add(self, row: Any, unfinished: Mapping[str, Any]) -> None:  # noqa: ANN401
        """Copy the result of one item, or say that it has none.

        Args:
            row: The item's row.
            unfinished: The error of an item that was not run.
        """
        if row.result_path is None:
            line = result_line(
                self._batch_id, row.custom_id, status=None, body=None, error=unfinished
            )
        else:
            reader = self._reader(row.result_path)
            reader.seek(row.result_start)
            line = reader.read(row.result_num_bytes)
        self._write("output" if row.state == "completed" else "error", line)

    def close(self) -> dict[str, Produced]:
        """End both files.

        Returns:
            Those that have lines, by "output" and "error".
        """
        self._open.close()
        return {
            name: Produced(id=file_id, path=self._path(file_id), num_bytes=self._sizes[name])
            for name, (file_id, _) in self._streams.items()
        }

    def _path(self, file_id: str) -> str:
        return f"{self.folder}/{file_id}"

    def _write(self, name: str, line: bytes) -> None:
        if name not in self._streams:
            file_id = new_file_id()
            stream = self._open.enter_context(self._store.writing(self._path(file_id)))
            self._streams[name] = file_id, stream
            self._sizes[name] = 0
        self._streams[name][1].write(line)
        self._sizes[name] += len(line)

    def _reader(self, path: str) -> BinaryIO:
        if path not in self._segments:
            if len(self._segments) >= MAX_OPEN_SEGMENTS:
                oldest, closing = self._segments.popitem(last=False)
                closing.close()
                del self._readers[oldest]
            opened = ExitStack()
            self._readers[path] = opened.enter_context(self._store.reading(path))
            self._segments[path] = opened
        self._segments.move_to_end(path)
        return self._readers[path]


def items_in_order(database: Database, batch_id: str) -> Iterator[list[Any]]:
    """Yield the rows of a batch in the order of its input.

    Args:
        database: Where they are.
        batch_id: The batch.

    Yields:
        Up to `PAGE_LINES` rows at a time.
    """
    last = 0
    while True:
        with database.read() as session:
            rows = session.execute(
                select(
                    BatchItem.line,
                    BatchItem.custom_id,
                    BatchItem.state,
                    BatchItem.result_path,
                    BatchItem.result_start,
                    BatchItem.result_num_bytes,
                )
                .where(BatchItem.batch_id == batch_id, BatchItem.line > last)
                .order_by(BatchItem.line)
                .limit(PAGE_LINES)
            ).all()
        if not rows:
            return
        yield list(rows)
        last = rows[-1].line
