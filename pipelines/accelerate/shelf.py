"""Compiled networks on disk: found by what they depend on, checked before they are used."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

_DIGEST_BYTES = 32
MAX_BYTES = 8 * 2**30
"""What a shelf may take; the files that were not used for longest go first."""


class Shelf:
    """A folder of compiled networks; several processes may share it.

    Args:
        folder: Made when the first file is written.
        max_bytes: What all files may take together.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes

    def find(self, key: Mapping[str, object]) -> bytes | None:
        """Return what was kept under a key; None if nothing was, or if it was damaged.

        Args:
            key: All that the bytes depend on, as JSON holds it.
        """
        file = self._file(key)
        try:
            content = file.read_bytes()
            os.utime(file)
        except OSError:
            return None
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return data if hashlib.sha256(data).digest() == digest else None

    def keep(self, key: Mapping[str, object], data: bytes) -> None:
        """Keep bytes under a key; a folder that cannot be written to keeps nothing.

        Args:
            key: All that the bytes depend on.
            data: The bytes.
        """
        file = self._file(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as new:
                new.write(hashlib.sha256(data).digest() + data)
            Path(new.name).replace(file)
            self._forget_oldest(file)
        except OSError:
            return

    def _file(self, key: Mapping[str, object]) -> Path:
        text = json.dumps(key, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.blob"

    def _forget_oldest(self, newest: Path) -> None:
        files = sorted(self.folder.glob("*.blob"), key=lambda file: file.stat().st_mtime)
        total = sum(file.stat().st_size for file in files)
        for file in files:
            if total <= self._max_bytes or file == newest:
                return
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
