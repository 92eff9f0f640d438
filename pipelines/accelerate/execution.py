"""What computes a model, how far that may be from plain torch, and when it was not used."""

import logging
from collections import Counter
from collections.abc import Mapping
from threading import Lock

log = logging.getLogger(__name__)


class Execution:
    """Says which backend serves a model, and counts every call that its slow twin took over.

    Args:
        backend: Registered name of the backend.
        tolerance: Largest relative distance of an output from that of plain torch in float32 that
            is let through, as |ours - plain| / |plain|; 0 where it is plain torch.
    """

    def __init__(self, backend: str, *, tolerance: float = 0.0) -> None:
        self.backend = backend
        self.tolerance = tolerance
        self._counts: Counter[str] = Counter()
        self._usage: Counter[str] = Counter()
        self._lock = Lock()  # counted on the engine's thread, read on the server's

    @property
    def fallbacks(self) -> Mapping[str, int]:
        """How often plain torch stood in, by reason."""
        with self._lock:
            return dict(self._counts)

    @property
    def usage(self) -> Mapping[str, int]:
        """What went through the networks, by what it is."""
        with self._lock:
            return dict(self._usage)

    def count(self, **amounts: int) -> None:
        """Count what goes through the networks.

        Args:
            amounts: How much more, by what it is; few names, for metrics.
        """
        with self._lock:
            self._usage.update(amounts)

    def fall_back(self, reason: str, why: str) -> None:
        """Count one call that plain torch takes over; the first of each reason is logged.

        Args:
            reason: One of few words, for metrics.
            why: The whole story, for the log.
        """
        with self._lock:
            self._counts[reason] += 1
            is_first = self._counts[reason] == 1
        if is_first:
            log.warning("Plain torch stands in (%s): %s", reason, why)
