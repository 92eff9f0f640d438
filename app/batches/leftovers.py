"""Bytes of batches that nobody needs any more: results already delivered, attempts that died."""

import time

from sqlalchemy import select

from app.batches.output import ALL_SEGMENTS, outputs_of, segments_of
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.tables import Batch, File


class Leftovers:
    """Finds and removes what ended batches left in storage.

    Args:
        database: Knows which batches ended and which files are theirs.
        store: Where the bytes are.
    """

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def remove_segments(self, batch: Batch) -> None:
        """Remove the results that a batch's output file holds by now.

        Args:
            batch: One that ended.
        """
        self._store.remove(segments_of(batch.id))

    def remove_attempts(self, batch: Batch) -> None:
        """Remove files by those who were killed, or too slow, while they ended a batch.

        Args:
            batch: One that ended; its own files stay.
        """
        with self._database.read() as session:
            named = File.id.in_((batch.output_file_id, batch.error_file_id))
            kept = session.scalars(select(File.path).where(named)).all()
        for attempt in self._store.children(outputs_of(batch.id)):
            if not any(path == attempt or path.startswith(f"{attempt}/") for path in kept):
                self._store.remove(attempt)

    def sweep(self, min_age_s: float) -> int:
        """Remove results that came after their batch was cleaned, by workers that died over it.

        Args:
            min_age_s: Seconds since the cleaning; somebody may be reading still.

        Returns:
            Batches that had any.
        """
        folders = {path.rpartition("/")[2]: path for path in self._store.children(ALL_SEGMENTS)}
        with self._database.read() as session:
            is_old = Batch.cleaned_at < time.time() - min_age_s
            ended = session.scalars(select(Batch.id).where(Batch.id.in_(folders), is_old)).all()
        for batch_id in ended:
            self._store.remove(folders[batch_id])
        return len(ended)
