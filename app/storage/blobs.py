"""Bytes that every replica reaches: one fsspec file system, a folder on this machine by default."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import BinaryIO
from uuid import uuid4

import fsspec

from core.errors import CapacityError, ConfigError, InputError

CHUNK_BYTES = 1 << 20

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss"})
"""Protocols that need the extra `fewstroke[s3]`."""


class StorageUnavailableError(CapacityError):
    """The blob storage does not answer, or refuses to write."""

    code = "storage_unavailable"


class BlobStore:
    """Reads and writes whole blobs by name, off the event loop.

    Names are ours, never a caller's: relative POSIX paths without dots. Writing is done under
    another name first, so that nobody ever reads half a blob.

    Args:
        url: A folder, or a URL that fsspec knows ("s3://bucket/prefix", "memory://fewstroke").

    Raises:
        ConfigError: If fsspec does not know the protocol, or lacks the package for it.
    """

    def __init__(self, url: str) -> None:
        self._failures: tuple[type[Exception], ...] = (OSError,)
        try:
            self._failures += _prefer_obstore(url)
            file_system, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"Storage {url!r}: {error}.", param="storage") from error
        self._files: fsspec.AbstractFileSystem = file_system
        self._root = str(root).rstrip("/")

    async def write(self, name: str, content: bytes) -> None:
        """Store a blob, replacing one of the same name.

        Args:
            name: Where, relative to the root.
            content: The bytes.

        Raises:
            StorageUnavailableError: If it cannot be written.
        """
        path = self._path(name)
        try:
            await asyncio.to_thread(self._write, path, content)
        except self._failures as error:
            raise StorageUnavailableError(
                f"The storage did not take a file of {len(content)} bytes: {_reason(error)}."
            ) from error

    async def read(self, name: str) -> bytes | None:
        """Return a blob, or None if there is none of this name.

        Args:
            name: Where, relative to the root.

        Raises:
            StorageUnavailableError: If it cannot be read, though it may be there.
        """
        try:
            content = await asyncio.to_thread(self._files.cat_file, self._path(name))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except self._failures as error:
            raise StorageUnavailableError(
                f"The storage did not give a file back: {_reason(error)}."
            ) from error
        assert isinstance(content, bytes)
        return content

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Yield a blob in chunks; for blobs that may be too large to hold.

        Args:
            name: Where, relative to the root; there must be one.

        Yields:
            Up to `CHUNK_BYTES` bytes.

        Raises:
            StorageUnavailableError: If it is not there or cannot be read.
        """
        try:
            stream = await asyncio.to_thread(self._files.open, self._path(name), "rb")
            try:
                while chunk := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                    yield chunk
            finally:
                await asyncio.to_thread(stream.close)
        except self._failures as error:
            raise StorageUnavailableError(
                f"The storage did not give a file back: {_reason(error)}."
            ) from error

    async def delete(self, name: str) -> None:
        """Remove a blob or a folder of blobs; one that is not there is no error.

        Args:
            name: Where, relative to the root. StorageUnavailableError says that the storage
                refuses.
        """
        await asyncio.to_thread(self.remove, name)

    async def names(self, folder: str) -> list[str]:
        """List the last parts of the names directly under a folder; none if there is no such.

        Args:
            folder: Where, relative to the root.

        Raises:
            StorageUnavailableError: If it cannot be listed.
        """
        try:
            found = await asyncio.to_thread(self._files.ls, self._path(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except self._failures as error:
            raise StorageUnavailableError(
                f"The storage did not list its files: {_reason(error)}."
            ) from error
        return sorted(PurePosixPath(str(path)).name for path in found)

    async def check(self) -> None:
        """Write, read and delete a probe, so that a storage that cannot serve fails at the start.

        Raises:
            ConfigError: If the storage does not give back what it was given.
        """
        # a name of its own: processes that start together share the storage
        name, content = f"probe-{uuid4().hex}", b"fewstroke"
        try:
            await self.write(name, content)
            found = await self.read(name)
            await self.delete(name)
        except StorageUnavailableError as error:
            raise ConfigError(f"{error.message} Check the storage.", param="storage") from error
        if found != content:
            raise ConfigError("The storage does not give back what was written.", param="storage")

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Write a blob piece by piece; blocks, for code in threads.

        The name must be new: a reader may see the blob grow, so nobody is told of it before.

        Args:
            name: Where, relative to the root.

        Yields:
            A stream to write to. At the end of the block its bytes are safe; if the block raises,
            the blob is removed.

        Raises:
            StorageUnavailableError: If it cannot be written.
        """
        path, is_whole = self._path(name), False
        try:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(path, "wb") as stream:
                yield stream
                stream.flush()
                if self._is_local:
                    os.fsync(stream.fileno())
            is_whole = True
        except self._failures as error:
            raise StorageUnavailableError(
                f"The storage did not take a file: {_reason(error)}."
            ) from error
        finally:
            if not is_whole:
                with suppress(*self._failures):
                    self._files.rm(path)

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """Read a blob piece by piece; blocks, for code in threads.

        Args:
            name: Where, relative to the root; there must be one.

        Yields:
            A stream that can be read and sought.

        Raises:
            StorageUnavailableError: If it is not there or cannot be read.
        """
        try:
            with self._files.open(self._path(name), "rb") as stream:
                yield stream
        except self._failures as error:
            raise StorageUnavailableError(
                f"The storage did not give a file back: {_reason(error)}."
            ) from error

    def remove(self, name: str) -> None:
        """Remove a blob or a folder of blobs; blocks, for code in threads.

        Args:
            name: Where, relative to the root; one that is not there is no error.

        Raises:
            StorageUnavailableError: If the storage refuses.
        """
        try:
            self._files.rm(self._path(name), recursive=True)
        except FileNotFoundError:
            return
        except self._failures as error:
            raise StorageUnavailableError(
                f"The storage did not delete a file: {_reason(error)}."
            ) from error

    def children(self, name: str) -> list[str]:
        """List what lies in a folder of blobs; blocks, for code in threads.

        Args:
            name: The folder, relative to the root; one that is not there is empty.

        Returns:
            Blobs and folders in it, relative to the root as well.

        Raises:
            StorageUnavailableError: If the storage refuses.
        """
        try:
            found = self._files.ls(self._path(name), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except self._failures as error:
            raise StorageUnavailableError(
                f"The storage did not list its files: {_reason(error)}."
            ) from error
        return [f"{name}/{path.rstrip('/').rpartition('/')[2]}" for path in found]

    @property
    def _is_local(self) -> bool:
        protocol = self._files.protocol
        return "file" in (protocol if isinstance(protocol, tuple) else (protocol,))

    def _write(self, path: str, content: bytes) -> None:
        parent, _, last = path.rpartition("/")
        self._files.makedirs(parent, exist_ok=True)
        # an object store publishes a blob whole; a file system while it is written
        if self._is_local:
            draft = f"{parent}/.{last}.part"
            self._files.pipe_file(draft, content)
            self._files.mv(draft, path)
        else:
            self._files.pipe_file(path, content)

    def _path(self, name: str) -> str:
        parts = name.split("/")
        if not name.isascii() or any(not part.strip(". ") or "\\" in part for part in parts):
            raise InputError(f"{name[:80]!r} is no name of a stored file.")
        return f"{self._root}/{name}"


def _prefer_obstore(url: str) -> tuple[type[Exception], ...]:
    # fsspec's own way to object stores takes a package for each; obstore, an extra, knows all
    protocol = url.partition("://")[0]
    if protocol not in OBJECT_STORES or find_spec("obstore") is None:
        return ()
    from obstore.exceptions import BaseError
    from obstore.fsspec import register

    register(protocol)
    return (BaseError,)


def _reason(error: Exception) -> str:
    # the text of an error holds paths, which are nobody's business outside
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
