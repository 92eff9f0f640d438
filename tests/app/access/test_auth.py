import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from app.access.auth import KeyLimits, KeyRing, bearer_token, is_guarded
from app.errors import AuthenticationError
from app.storage.database import Database
from core.errors import InputError, UnknownNameError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/keys.db")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def keys(database: Database) -> KeyRing:
    return KeyRing(database)


def test_a_key_works_until_it_is_revoked(keys: KeyRing) -> None:
    token = keys.create("studio", KeyLimits(is_admin=True, requests_per_minute=5, max_priority=2))
    caller = keys.identify(token)
    assert (caller.name, caller.is_admin, caller.is_limited) == ("studio", True, True)
    assert caller.max_priority == 2
    assert keys.count() == (1, 1)
    keys.revoke(caller.id)
    with pytest.raises(AuthenticationError, match="revoked"):
        keys.identify(token)
    assert keys.count() == (0, 1)
    [row] = keys.listed()
    assert row.revoked_at is not None
    keys.revoke(token)
    assert keys.listed()[0].revoked_at == row.revoked_at


@pytest.mark.parametrize("name", ["", "  ", "x" * 201])
def test_a_key_has_a_name(keys: KeyRing, name: str) -> None:
    with pytest.raises(InputError, match="1 to 200 characters"):
        keys.create(name, KeyLimits())
    assert keys.listed() == []


def test_a_key_can_expire(keys: KeyRing) -> None:
    token = keys.create("guest", KeyLimits(lifetime_s=-1))
    with pytest.raises(AuthenticationError, match="expired"):
        keys.identify(token)
    assert keys.count() == (0, 1)
    assert keys.identify(keys.create("guest", KeyLimits(lifetime_s=60))).name == "guest"


def test_the_database_does_not_hold_what_opens_the_door(keys: KeyRing, database: Database) -> None:
    token = keys.create("studio", KeyLimits())
    secret = token.split("-", 2)[2]
    with database.engine.connect() as connection:
        kept = str(connection.exec_driver_sql("SELECT * FROM api_key").all())
    assert secret not in kept
    assert token != keys.create("studio", KeyLimits())


@pytest.mark.parametrize("offered", ["", "x", "fs-", "fs-000000000000-" + "A" * 43, "\u00e9" * 50])
def test_what_is_no_key_of_ours_is_refused(keys: KeyRing, offered: str) -> None:
    with pytest.raises(AuthenticationError, match="not known"):
        keys.identify(offered)


def test_a_key_with_one_letter_changed_is_refused(keys: KeyRing) -> None:
    token = keys.create("studio", KeyLimits())
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    with pytest.raises(AuthenticationError, match="not known"):
        keys.identify(changed)


def test_revoking_a_key_that_does_not_exist_names_those_that_do(keys: KeyRing) -> None:
    token = keys.create("studio", KeyLimits())
    with pytest.raises(UnknownNameError, match=token.split("-")[1]):
        keys.revoke("000000000000")


def test_a_wrong_secret_takes_as_long_as_an_unknown_id(keys: KeyRing) -> None:
    token = keys.create("studio", KeyLimits())
    wrong, unknown = token[:-8] + "A" * 8, "fs-" + "0" * 12 + token[15:]

    def seconds(offered: str) -> float:
        started = time.perf_counter()
        for _ in range(200):
            with pytest.raises(AuthenticationError):
                keys.identify(offered)
        return time.perf_counter() - started

    assert 1 / 3 < min(seconds(wrong) / seconds(unknown) for _ in range(3)) < 3


@pytest.mark.parametrize(
    "path",
    ["/v1/images/generations", "/v1/images/contents", "/v1/models", "/admin/models/activate"],
)
def test_paths_that_need_a_key(path: str) -> None:
    assert is_guarded(path)


@pytest.mark.parametrize("path", ["/v1/images/content/x.png", "/livez", "/metrics", "/studio"])
def test_paths_that_are_open(path: str) -> None:
    assert not is_guarded(path)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", None),
        ("Bearer ", None),
        ("", None),
    ],
)
def test_only_a_bearer_token_is_a_key(header: str, token: str | None) -> None:
    assert bearer_token(Headers({"authorization": header})) == token
