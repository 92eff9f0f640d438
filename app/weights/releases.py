"""Published models: whole checkpoint folders under one root, each named by what it holds.

    <root>/<release>/release.json       sha256 of every file, and where it came from
    <root>/<release>/<model name>/...   the checkpoint
    <root>/active.json                  which release serves which variant after a restart

A release is written beside its place and then takes it, and never changes afterwards.
"""

import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from core.errors import CheckpointError, ConfigError, InputError, UnknownNameError
from pipelines.integrity import digest, read_json, verify_digests
from pipelines.store import open_checkpoint

_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}", re.ASCII)
_MANIFEST = "release.json"
_ACTIVE = "active.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A published model.

    Attributes:
        name: Its name: variant and revision.
        model: Name of the model.
        variant: The variant that it serves.
        revision: Content hash of its weights and configuration.
        published_at: Unix seconds.
        sha256: sha256 of every file, by path below the model's folder.
    """

    name: str
    model: str
    variant: str
    revision: str
    published_at: float
    sha256: Mapping[str, str]


class ReleaseShelf:
    """The releases of one service.

    Args:
        root: Their folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, source: Path, *, variant: str | None = None, model: str | None = None) -> str:
        """Copy a checkpoint to where servers find it, after checking it.

        Args:
            source: A checkpoint folder.
            variant: Which of its variants; None for its default.
            model: Name that clients call the model by; None for the folder's.

        Returns:
            The release's name; the same files give the same name, and are copied once.

        Raises:
            ConfigError: If the root cannot be written. A checkpoint that cannot be served is
                raised as `open_checkpoint` says.
        """
        found = open_checkpoint(source, variant=variant)
        name = f"{found.info.variant}-{found.info.revision}"
        place, model = self._root / name, model or source.resolve().name
        _checked(name)
        _checked(model)
        if (place / _MANIFEST).is_file():
            return name
        draft = self._root / f".{name}.{uuid4().hex}"
        try:
            shutil.copytree(found.root, draft / model)
            release = Release(
                name=name,
                model=model,
                variant=found.info.variant,
                revision=found.info.revision,
                published_at=time.time(),
                sha256=_digests(draft / model),
            )
            _write_json(draft / _MANIFEST, asdict(release))
            draft.rename(place)
        except OSError as error:
            raise ConfigError(
                f"Cannot publish to {self._root}: {error.strerror or error}.", param="data_dir"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return name

    def listed(self) -> list[Release]:
        """Return all releases, the oldest first."""
        files = self._root.glob(f"*/{_MANIFEST}")
        found = [_read(file) for file in files if not file.parent.name.startswith(".")]
        return sorted(found, key=lambda release: (release.published_at, release.name))

    def find(self, name: str) -> Release:
        """Return a release.

        Args:
            name: Its name; never a path.

        Raises:
            UnknownNameError: If there is none of this name.
        """
        known = {release.name: release for release in self.listed()}
        if name not in known:
            raise UnknownNameError("release", name, known, param="release")
        return known[name]

    def verify(self, release: Release) -> Path:
        """Compare every file of a release with what was published.

        Args:
            release: The release.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: If a file is missing, was changed, or was added.
        """
        folder = self._root / release.name / release.model
        if not folder.is_dir():
            raise CheckpointError(f"The release {release.name} is incomplete: publish it again.")
        added = set(_files(folder)) - set(release.sha256)
        if added:
            raise CheckpointError(
                f"The release {release.name} holds {min(added)}, which was not published: publish "
                "it again."
            )
        verify_digests(folder, release.sha256)
        return folder

    def active(self) -> dict[str, str]:
        """Return which release serves which variant; variants of the settings' model are absent."""
        file = self._root / _ACTIVE
        if not file.is_file():
            return {}
        return {variant: str(name) for variant, name in read_json(file).items()}

    def set_active(self, variant: str, name: str | None) -> None:
        """Remember which release serves a variant.

        Args:
            variant: The variant.
            name: The release; None for what the settings say.

        Raises:
            ConfigError: If this cannot be written.
        """
        chosen = {**self.active(), variant: name}
        draft = self._root / f".{_ACTIVE}.{uuid4().hex}"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            _write_json(draft, {key: value for key, value in chosen.items() if value is not None})
            draft.replace(self._root / _ACTIVE)
        except OSError as error:
            raise ConfigError(
                f"Cannot write to {self._root}: {error.strerror or error}.", param="data_dir"
            ) from error


def _read(file: Path) -> Release:
    record: dict[str, Any] = read_json(file)
    try:
        return Release(**record)
    except TypeError as error:
        raise CheckpointError(f"{file} is no manifest of a release: publish again.") from error


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def _digests(folder: Path) -> dict[str, str]:
    return {name: digest(folder / name) for name in _files(folder)}


def _checked(name: str) -> None:
    if not _RELEASE.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a release: use letters, digits, dots, hyphens, underscores.",
            param="model",
        )


def _write_json(file: Path, content: Mapping[str, object]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
