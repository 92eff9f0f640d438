"""What was made of words, kept from one step to the next."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

KEPT_BYTES = 2**28
"""What everything that is kept may take together."""

KEPT_THINGS = 64
"""Things that are kept at most: more than pictures are in flight, and no more than that."""


@runtime_checkable
class Sized(Protocol):
    """What knows how much memory it takes; it may grow after it was made."""

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors."""


Kept = TypeVar("Kept", bound=Sized)


class Memory(Generic[Kept]):
    """Remembers what was made of objects, for as long as the same objects come back.

    Encoded texts and rows of regions are made once a request and handed in at each of its steps,
    so that it is enough to know them by what they are, without looking at their numbers.

    Args:
        max_bytes: What may be kept; what was not asked for for longest goes first.
        max_things: Things that may be kept.
    """

    def __init__(self, max_bytes: int = KEPT_BYTES, max_things: int = KEPT_THINGS) -> None:
        self._max_bytes = max_bytes
        self._max_things = max_things
        # the objects are kept beside what was made of them: nobody else gets their place meanwhile
        self._known: OrderedDict[Hashable, tuple[Sequence[object], Kept]] = OrderedDict()

    def recall(
        self, owners: Sequence[object], make: Callable[[], Kept], *, kind: Hashable = ()
    ) -> Kept:
        """Return what is known of objects, or make it, and make room where it became much.

        Args:
            owners: The objects, in their order.
            make: Makes it; its numbers depend on the objects and the kind alone.
            kind: What else it depends on.
        """
        key = (kind, *map(id, owners))
        if key not in self._known:
            self._known[key] = (tuple(owners), make())
            self._make_room()
        self._known.move_to_end(key)
        return self._known[key][1]

    def _make_room(self) -> None:
        total = sum(kept.num_bytes for _, kept in self._known.values())
        while len(self._known) > (1 if total > self._max_bytes else self._max_things):
            _, (_, oldest) = self._known.popitem(last=False)
            total -= oldest.num_bytes
