import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.access.idempotency
from app.access.idempotency import AnswerBook, Claim, StoredAnswer
from app.errors import IdempotencyInUseError, IdempotencyMismatchError
from app.storage.blobs import BlobStore
from app.storage.database import Database
from core.errors import InputError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/answers.db")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def book(database: Database, tmp_path: Path) -> AnswerBook:
    return AnswerBook(database, BlobStore(str(tmp_path / "blobs")), lifetime_s=60)


async def _answer(book: AnswerBook, content: bytes = b"one", owner: str = "me") -> object:
    async with book.claim(owner, "key", b"body") as found:
        if isinstance(found, Claim):
            await book.keep(found, content, "application/json")
    return found


def test_the_second_time_the_first_answer_is_given(book: AnswerBook) -> None:
    assert isinstance(asyncio.run(_answer(book)), Claim)
    again = asyncio.run(_answer(book, b"two"))
    assert again == StoredAnswer(content=b"one", media_type="application/json")
    assert isinstance(asyncio.run(_answer(book, owner="you")), Claim)


def test_another_body_under_the_same_key_is_refused(book: AnswerBook) -> None:
    async def story() -> None:
        async with book.claim("me", "key", b"body"):
            with pytest.raises(IdempotencyMismatchError):
                async with book.claim("me", "key", b"other"):
                    pass
            with pytest.raises(IdempotencyInUseError) as caught:
                async with book.claim("me", "key", b"body"):
                    pass
            assert caught.value.retry_after_s > 0

    asyncio.run(story())
    asyncio.run(_answer(book))
    with pytest.raises(IdempotencyMismatchError):
        asyncio.run(_enter(book, b"other"))


async def _enter(book: AnswerBook, body: bytes = b"body", key: str = "key") -> object:
    async with book.claim("me", key, body) as found:
        return found


def test_what_failed_can_be_tried_again(book: AnswerBook) -> None:
    async def fail() -> None:
        async with book.claim("me", "key", b"body"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
    assert isinstance(asyncio.run(_enter(book, b"another body")), Claim)


def test_a_killed_server_blocks_a_key_only_until_its_lease_ends(
    book: AnswerBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.access.idempotency, "LEASE_S", -1.0)
    left_behind = book._claim("me", "key", b"body")
    assert isinstance(left_behind, Claim)
    monkeypatch.setattr(app.access.idempotency, "LEASE_S", 60.0)

    async def story() -> None:
        async with book.claim("me", "key", b"body") as found:
            assert isinstance(found, Claim)
            book._keep(left_behind, "late", "text/plain", 60.0)  # the old one is not dead after all
            await book.keep(found, b"new", "text/plain")
        assert await _enter(book) == StoredAnswer(content=b"new", media_type="text/plain")

    asyncio.run(story())


def test_a_lease_is_renewed_while_the_work_goes_on(
    book: AnswerBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.access.idempotency, "LEASE_S", 0.3)

    async def story() -> None:
        async with book.claim("me", "key", b"body"):
            await asyncio.sleep(0.8)
            with pytest.raises(IdempotencyInUseError):
                await _enter(book)

    asyncio.run(story())


def test_an_answer_whose_body_is_gone_is_made_anew(book: AnswerBook) -> None:
    asyncio.run(_answer(book))
    asyncio.run(book._store.delete(app.access.idempotency.FOLDER))
    assert isinstance(asyncio.run(_answer(book, b"two")), Claim)


def test_an_answer_is_kept_no_longer_than_it_is_worth_anything(book: AnswerBook) -> None:
    async def keep(max_lifetime_s: float) -> None:
        async with book.claim("me", f"k{max_lifetime_s}", b"body") as claim:
            assert isinstance(claim, Claim)
            await book.keep(claim, b"links", "application/json", max_lifetime_s=max_lifetime_s)

    for lifetime_s, kind in ((0.01, Claim), (1e9, StoredAnswer)):
        asyncio.run(keep(lifetime_s))
        time.sleep(0.05)
        assert isinstance(asyncio.run(_enter(book, key=f"k{lifetime_s}")), kind)


def test_old_answers_are_forgotten(database: Database, tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path / "blobs"))
    book = AnswerBook(database, store, lifetime_s=-7300)
    asyncio.run(_answer(book))
    assert isinstance(asyncio.run(_enter(book)), Claim)
    asyncio.run(_answer(book))
    asyncio.run(_answer(AnswerBook(database, store, lifetime_s=60), owner="you"))
    assert asyncio.run(book.sweep()) == 1
    assert asyncio.run(book.sweep()) == 0
    assert len(asyncio.run(store.names(app.access.idempotency.FOLDER))) == 1
    assert isinstance(asyncio.run(_enter(book)), Claim)


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "a\nb"])
def test_a_key_that_cannot_be_kept_is_refused(book: AnswerBook, key: str) -> None:
    with pytest.raises(InputError, match="Idempotency-Key"):
        asyncio.run(_enter(book, key=key))
