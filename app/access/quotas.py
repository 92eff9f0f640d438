"""How much a key may ask for: a bucket that refills steadily, kept in the database.

Both limits of a key, requests a minute and cost units a window, are the same arithmetic (GCRA):
one moment is stored, at which the bucket will be full again. What is taken moves it into the
future; what would move it further ahead than a whole window is refused, and the overhang is exactly
how long to wait.
"""

from dataclasses import dataclass

from sqlalchemy import select

from app.access.auth import Caller
from app.errors import CostAboveQuotaError, QuotaExceededError, RateLimitedError
from app.storage.database import Database, now_s
from app.storage.tables import ApiKey

RATE_WINDOW_S = 60.0


class Quotas:
    """Charges keys for what they ask, on every replica against the same account.

    Args:
        database: Where the keys are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def charge(self, caller: Caller, cost: float) -> None:
        """Take one request and its cost from a key, or take nothing.

        Args:
            caller: Who asks; one without limits is not charged.
            cost: In cost units: image tokens times steps of all pictures.

        Raises:
            RateLimitedError: If the key asks too often. QuotaExceededError and CostAboveQuotaError
                say that its units do not suffice now, or never will.
        """
        if not caller.is_limited:
            return
        with self._database.write() as session:
            query = select(ApiKey, now_s()).where(ApiKey.id == caller.id).with_for_update()
            key, now = session.execute(query).one()
            if key.requests_per_minute is not None:
                bucket = Bucket(capacity=key.requests_per_minute, window_s=RATE_WINDOW_S)
                key.rate_full_at, wait_s = bucket.take(1, full_at=key.rate_full_at, now=now)
                if wait_s > 0:
                    raise RateLimitedError(
                        f"This key may send {key.requests_per_minute} requests a minute. "
                        "Try again when Retry-After has passed.",
                        retry_after_s=wait_s,
                    )
            if key.quota_units is not None:
                key.quota_full_at = _charge_units(key, cost, now)

    def refund(self, caller: Caller, cost: float) -> None:
        """Give back what was taken for a request that the server did not serve.

        Args:
            caller: Who was charged.
            cost: What `charge` was told.
        """
        if not caller.is_limited:
            return
        with self._database.write() as session:
            key = session.get_one(ApiKey, caller.id, with_for_update=True)
            if key.quota_units is not None:
                bucket = Bucket(capacity=key.quota_units, window_s=key.quota_window_s)
                key.quota_full_at -= bucket.seconds(cost)
            if key.requests_per_minute is not None:
                bucket = Bucket(capacity=key.requests_per_minute, window_s=RATE_WINDOW_S)
                key.rate_full_at -= bucket.seconds(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """A bucket that refills in `window_s` seconds from empty to full.

    Attributes:
        capacity: Units that it holds; above 0.
        window_s: Seconds in which it refills; above 0.
    """

    capacity: float
    window_s: float

    def take(self, units: float, *, full_at: float, now: float) -> tuple[float, float]:
        """Take units, or tell how long until they are there.

        Args:
            units: How many, at most `capacity`.
            full_at: When the bucket is full again, in Unix seconds; the past means now.
            now: Unix seconds.

        Returns:
            The new `full_at`, and 0; or the old one, and the seconds to wait.
        """
        then = max(full_at, now) + self.seconds(units)
        wait_s = then - now - self.window_s
        # clocks in Unix seconds resolve a quarter of a microsecond
        return (full_at, wait_s) if wait_s > 1e-6 else (then, 0.0)

    def seconds(self, units: float) -> float:
        """Return how long it takes to refill so many units.

        Args:
            units: How many.
        """
        return units * self.window_s / self.capacity


def _charge_units(key: ApiKey, cost: float, now: float) -> float:
    assert key.quota_units is not None
    if cost > key.quota_units:
        raise CostAboveQuotaError(
            f"This costs {cost:.0f} units (image tokens times steps), and the key has "
            f"{key.quota_units:.0f} in {key.quota_window_s} s: ask for fewer pictures or steps."
        )
    bucket = Bucket(capacity=key.quota_units, window_s=key.quota_window_s)
    full_at, wait_s = bucket.take(cost, full_at=key.quota_full_at, now=now)
    if wait_s > 0:
        raise QuotaExceededError(
            f"This costs {cost:.0f} units (image tokens times steps), more than the key has left "
            f"of its {key.quota_units:.0f} in {key.quota_window_s} s. Try again when Retry-After "
            "has passed.",
            retry_after_s=wait_s,
        )
    return full_at
