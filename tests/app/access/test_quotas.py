from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.auth import Caller, KeyLimits, KeyRing
from app.access.quotas import Bucket, Quotas
from app.errors import CostAboveQuotaError, QuotaExceededError, RateLimitedError
from app.storage.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/keys.db")
    database.migrate()
    yield database
    database.close()


def _caller(database: Database, **limits: object) -> Caller:
    keys = KeyRing(database)
    return keys.identify(keys.create("studio", KeyLimits(**limits)))


def test_a_key_without_limits_is_never_refused(database: Database) -> None:
    caller = _caller(database)
    for _ in range(50):
        Quotas(database).charge(caller, 1e12)


def test_units_run_out_and_the_wait_is_the_time_they_take_to_come_back(database: Database) -> None:
    caller, quotas = _caller(database, quota_units=100, quota_window_s=1000), Quotas(database)
    quotas.charge(caller, 60)
    with pytest.raises(QuotaExceededError) as caught:
        quotas.charge(caller, 60)
    assert caught.value.retry_after_s == pytest.approx(200, abs=2)
    quotas.charge(caller, 40)
    quotas.refund(caller, 40)
    quotas.charge(caller, 39)
    with pytest.raises(CostAboveQuotaError, match="100 in 1000 s"):
        quotas.charge(caller, 101)


def test_a_refused_request_costs_nothing(database: Database) -> None:
    caller = _caller(database, requests_per_minute=10, quota_units=100)
    quotas = Quotas(database)
    quotas.charge(caller, 100)
    for _ in range(50):
        with pytest.raises(QuotaExceededError):
            quotas.charge(caller, 100)
    quotas.refund(caller, 100)
    for _ in range(10):
        quotas.charge(caller, 1)
    with pytest.raises(RateLimitedError) as caught:
        quotas.charge(caller, 1)
    assert caught.value.retry_after_s == pytest.approx(6, abs=1)


def test_all_replicas_draw_on_one_account(database: Database) -> None:
    caller = _caller(database, quota_units=10, quota_window_s=86_400)
    replicas = [Quotas(database), Quotas(database)]

    def charge(k: int) -> bool:
        try:
            replicas[k % 2].charge(caller, 1)
        except QuotaExceededError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(charge, range(40))) == 10


@given(
    capacity=st.floats(1, 1e6),
    window_s=st.floats(1, 1e6),
    takes=st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1)), max_size=40),
)
def test_no_window_lets_more_than_two_buckets_through(
    capacity: float, window_s: float, takes: list[tuple[float, float]]
) -> None:
    bucket = Bucket(capacity=capacity, window_s=window_s)
    now, full_at, taken = 0.0, 0.0, []
    for pause_s, share in takes:
        now += pause_s
        units = share * capacity
        full_at, wait_s = bucket.take(units, full_at=full_at, now=now)
        if wait_s == 0:
            taken.append((now, units))
    for start, _ in taken:
        inside = sum(units for when, units in taken if start <= when < start + window_s)
        assert inside <= 2 * capacity * (1 + 1e-6) + 1e-3


@given(units=st.floats(0.01, 1), used=st.floats(0, 1), window_s=st.floats(1, 1e5))
def test_after_the_stated_wait_it_is_there_and_not_long_before(
    units: float, used: float, window_s: float
) -> None:
    bucket = Bucket(capacity=1, window_s=window_s)
    full_at, _ = bucket.take(used, full_at=0, now=100)
    same, wait_s = bucket.take(units, full_at=full_at, now=100)
    if wait_s > 0:
        assert same == full_at
        assert bucket.take(units, full_at=full_at, now=100 + wait_s)[1] == 0
        assert bucket.take(units, full_at=full_at, now=100 + 0.5 * wait_s)[1] > 0 or wait_s < 1e-3
