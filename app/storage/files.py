"""Files: the row says whose they are and when they end, storage has their bytes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.orm import Session

from app.errors import NotFoundError
from app.storage.blobs import CHUNK_BYTES, BlobStore
from app.storage.database import Database
from app.storage.paging import Page, take_page
from app.storage.tables import Batch, File
from core.errors import InputError

UPLOAD_TIMEOUT_S = 86_400.0
"""A row stands before its bytes, marked for deletion: what a dying server left is swept too."""

ENDED = ("completed", "failed", "expired", "cancelled")


class FileTooLargeError(InputError):
    """An upload that is larger than this server takes."""

    code = "file_too_large"


class Files:
    """Every file that was uploaded or produced.

    Nobody sees files of another owner; for them these are not there.

    Args:
        database: Where the rows are.
        store: Where the bytes are.
        max_bytes: Largest file that is taken.
    """

    def __init__(self, database: Database, store: BlobStore, *, max_bytes: int) -> None:
        self.store = store
        self._database = database
        self._max_bytes = max_bytes

    def create(
        self,
        source: BinaryIO,
        *,
        owner: str,
        filename: str,
        purpose: str,
        expires_after_s: int | None = None,
    ) -> File:
        """Store a file; it stands on disk and in the database when this returns.

        Args:
            source: Its bytes, read to the end in pieces.
            owner: Whose it is.
            filename: What the caller calls it.
            purpose: OpenAI's word for what it is for.
            expires_after_s: Seconds until it is deleted; None keeps it.

        Returns:
            Its row. FileTooLargeError is raised where there are more bytes than the server takes.
        """
        file = self.draft(
            owner=owner, filename=filename, purpose=purpose, expires_after_s=expires_after_s
        )
        num_bytes = self._store(source, file.path)
        with self._database.write() as session:
            publish(session, {file.id: num_bytes})
        return self.get(file.id, owner=owner)

    def draft(
        self, *, owner: str, filename: str, purpose: str, expires_after_s: int | None = None
    ) -> File:
        """Write the row of a file that nobody sees before `publish`; its bytes come in between.

        Args:
            owner: Whose it will be.
            filename: What it is called.
            purpose: OpenAI's word for what it is for.
            expires_after_s: Seconds until it is deleted; None keeps it.

        Returns:
            Its row, which says where the bytes belong.
        """
        file_id, now = new_file_id(), time.time()
        file = File(
            id=file_id,
            owner=owner,
            purpose=purpose,
            filename=filename,
            num_bytes=0,
            path=path_of(file_id),
            created_at=now,
            expires_at=None if expires_after_s is None else now + expires_after_s,
            deleted_at=now + UPLOAD_TIMEOUT_S,
        )
        with self._database.write() as session:
            session.add(file)
        return file

    def _store(self, source: BinaryIO, path: str) -> int:
        num_bytes = 0
        with self.store.writing(path) as blob:
            while chunk := source.read(CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > self._max_bytes:
                    raise FileTooLargeError(
                        f"The file is larger than the {self._max_bytes} bytes this server takes. "
                        "Cut it into several.",
                        param="file",
                    )
                blob.write(chunk)
        return num_bytes

    def get(self, file_id: str, *, owner: str) -> File:
        """Return the row of a file.

        Args:
            file_id: Its id.
            owner: Who asks.

        Raises:
            NotFoundError: If this owner has no such file, or has it no more.
        """
        with self._database.read() as session:
            file = session.scalar(
                select(File).where(File.id == file_id, File.owner == owner, is_there())
            )
        if file is None:
            raise NotFoundError(f"No such File object: {file_id[:80]}", param="id")
        return file

    def page(
        self, page: Page, *, owner: str, purpose: str | None = None
    ) -> tuple[Sequence[File], bool]:
        """Return files of an owner, and whether there are more.

        Args:
            page: Which of them. NotFoundError is raised where it begins after no file of theirs.
            owner: Whose.
            purpose: Only those of this purpose; None for all.
        """
        query = select(File).where(File.owner == owner, is_there())
        if purpose is not None:
            query = query.where(File.purpose == purpose)
        with self._database.read() as session:
            return take_page(session, File, query, page, owner=owner)

    def chunks(self, file: File) -> Iterator[bytes]:
        """Yield the bytes of a file in pieces.

        Args:
            file: Its row.

        Yields:
            Up to `CHUNK_BYTES` bytes.
        """
        with self.store.reading(file.path) as blob:
            while chunk := blob.read(CHUNK_BYTES):
                yield chunk

    def reading(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open the bytes of a file.

        Args:
            path: Where in storage they lie.

        Returns:
            A block in which they can be read and sought.
        """
        return self.store.reading(path)

    def delete(self, file_id: str, *, owner: str) -> None:
        """Delete a file; a batch that reads it is not disturbed, and keeps its bytes until it ends.

        Args:
            file_id: Its id. NotFoundError is raised where this owner has no such file.
            owner: Who asks.
        """
        file = self.get(file_id, owner=owner)
        with self._database.write() as session:
            session.execute(update(File).where(File.id == file.id).values(deleted_at=time.time()))
        self.sweep()

    def sweep(self, limit: int = 100) -> int:
        """Remove the bytes of files that were deleted or have expired, and that no batch reads.

        Args:
            limit: Most files to remove in one go.

        Returns:
            How many were removed.
        """
        is_over = or_(File.deleted_at < time.time(), File.expires_at < time.time())
        in_use = exists().where(Batch.input_file_id == File.id, Batch.status.not_in(ENDED))
        with self._database.read() as session:
            found = session.execute(
                select(File.id, File.path).where(is_over, File.path != "", ~in_use).limit(limit)
            ).all()
        return sum(self._remove(row.id) for row in found)

    def _remove(self, file_id: str) -> bool:
        with self._database.write() as session:
            file = session.get(File, file_id, with_for_update=True)
            in_use = exists().where(Batch.input_file_id == file_id, Batch.status.not_in(ENDED))
            if file is None or session.scalar(select(in_use)):
                return False
            # bytes first: if that fails the row still knows where they are
            self.store.remove(file.path)
            file.path = ""
            file.deleted_at = file.deleted_at or time.time()
        return True


def publish(session: Session, sizes: Mapping[str, int]) -> None:
    """Show drafts to their owners.

    Args:
        session: The transaction that makes them true.
        sizes: How large each is, in bytes, by file id.
    """
    for file_id, num_bytes in sizes.items():
        session.execute(
            update(File)
            .where(File.id == file_id)
            .values(num_bytes=num_bytes, deleted_at=None)
            .execution_options(synchronize_session=False)
        )


def new_file_id() -> str:
    """Return an id that no other file has."""
    return f"file-{uuid4().hex[:24]}"


def path_of(file_id: str) -> str:
    """Return where in storage a file lies.

    Args:
        file_id: Its id.
    """
    # two levels, so that no folder gets hundreds of thousands of entries
    digits = file_id.rpartition("-")[2]
    return f"files/{digits[:2]}/{file_id}"


def is_there() -> ColumnElement[bool]:
    """Return the condition that a file is neither deleted nor expired."""
    expired = and_(File.expires_at.is_not(None), File.expires_at <= time.time())
    return and_(File.deleted_at.is_(None), ~expired)
