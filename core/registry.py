"""A table of named things that can be chosen by a string from outside."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from core.errors import ConfigError, UnknownNameError

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries filed under names; a miss lists what is known, a duplicate is refused.

    Args:
        kind: What is filed here, as a noun for messages ("scheduler").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, entry: Entry) -> Entry:
        """File an entry under a name.

        Args:
            name: How it is chosen from outside; not yet taken.
            entry: What the name stands for.

        Returns:
            The entry, unchanged, so that a definition can be filed where it stands.

        Raises:
            ConfigError: If the name is already taken.
        """
        if name in self._entries:
            raise ConfigError(
                f"The {self.kind} {name!r} is already registered: choose another name."
            )
        self._entries[name] = entry
        return entry

    def get(self, name: str, *, param: str | None = None) -> Entry:
        """Return the entry filed under a name.

        Args:
            name: What is looked up.
            param: The request field or setting that the name came from.

        Returns:
            The entry.

        Raises:
            UnknownNameError: If nothing is filed under the name; the message lists the known ones.
        """
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries, param=param)
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """Return all names, in order of registration."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
