"""Idempotency-Key: a request that is sent twice is painted once, and answered twice the same.

The first one leases the key and renews the lease while it works. What it answered is kept, the
bytes in the storage and the rest in the database, for every replica. A server that is killed lets
its lease run out, and the next try starts anew.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import ColumnElement, delete, select, update

from app.errors import IdempotencyInUseError, IdempotencyMismatchError
from app.storage.blobs import BlobStore
from app.storage.database import Database, DatabaseUnavailableError, now_s
from app.storage.tables import IdempotentAnswer
from core.errors import InputError

LEASE_S = 60.0
MAX_KEY_CHARS = 255
HEADER = "Idempotency-Key"
FOLDER = "answers"
SECONDS_PER_FOLDER = 3600
"""Bodies lie in a folder for the hour in which they are needed no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAnswer:
    """An answer that was given before.

    Attributes:
        content: The body.
        media_type: What it is.
    """

    content: bytes
    media_type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Leave to answer a request, until it is kept or given back.

    Attributes:
        owner: Whose key it is.
        key: The Idempotency-Key.
        token: Tells this claim from a later one.
    """

    owner: str
    key: str
    token: str


class AnswerBook:
    """Answers by owner and Idempotency-Key.

    Args:
        database: Where the keys are.
        store: Where the bodies are.
        lifetime_s: How long an answer is kept, in seconds.
    """

    def __init__(self, database: Database, store: BlobStore, *, lifetime_s: float) -> None:
        self._database = database
        self._store = store
        self._lifetime_s = lifetime_s

    @asynccontextmanager
    async def claim(self, owner: str, key: str, body: bytes) -> AsyncIterator[Claim | StoredAnswer]:
        """Claim a key for a request, or find what was answered.

        A claim that was not kept when the block ends is given back: errors are not stored, so the
        same key can be tried again.

        Args:
            owner: Whose key it is; others may use the same.
            key: The Idempotency-Key.
            body: The request, in one canonical form.

        Yields:
            A claim, or the stored answer. IdempotencyInUseError and IdempotencyMismatchError say
            why there is neither; InputError, that the key cannot be used.
        """
        check_key(key)
        found = await asyncio.to_thread(self._claim, owner, key, body)
        if isinstance(found, IdempotentAnswer):
            content = await self._store.read(str(found.path))
            if content is not None:
                yield StoredAnswer(content=content, media_type=str(found.media_type))
                return
            await asyncio.to_thread(self._forget, owner, key)
            found = await asyncio.to_thread(self._claim, owner, key, body)
            assert isinstance(found, Claim)
        renewing = asyncio.create_task(self._renew(found))
        try:
            yield found
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            await asyncio.shield(asyncio.to_thread(self._give_back, found))

    async def keep(
        self,
        claim: Claim,
        content: bytes,
        media_type: str,
        *,
        max_lifetime_s: float | None = None,
    ) -> None:
        """Keep an answer for whoever asks again.

        Args:
            claim: The claim under which it was made.
            content: The body.
            media_type: What it is.
            max_lifetime_s: How long the answer is worth anything, in seconds; None is for ever.
        """
        lifetime_s = min(self._lifetime_s, max_lifetime_s or self._lifetime_s)
        hour = int(time.time() + lifetime_s) // SECONDS_PER_FOLDER + 1
        path = f"{FOLDER}/{hour}/{uuid4().hex}"
        await self._store.write(path, content)
        await asyncio.to_thread(self._keep, claim, path, media_type, lifetime_s)

    async def sweep(self) -> int:
        """Forget the answers that are too old.

        Returns:
            How many were forgotten.
        """
        num_old = await asyncio.to_thread(self._delete_expired)
        this_hour = int(time.time()) // SECONDS_PER_FOLDER
        for hour in await self._store.names(FOLDER):
            if hour.isdigit() and int(hour) < this_hour:
                await self._store.delete(f"{FOLDER}/{hour}")
        return num_old

    def _claim(self, owner: str, key: str, body: bytes) -> Claim | IdempotentAnswer:
        digest = hashlib.sha256(body).hexdigest()
        claim = Claim(owner=owner, key=key, token=uuid4().hex)
        with self._database.write() as session:
            query = select(IdempotentAnswer, now_s()).where(
                IdempotentAnswer.owner == owner, IdempotentAnswer.key == key
            )
            found = session.execute(query.with_for_update()).one_or_none()
            now = found[1] if found else session.execute(select(now_s())).scalar_one()
            row = found[0] if found and found[0].expires_at > now else None
            if row is not None and row.body_sha256 != digest:
                raise IdempotencyMismatchError(
                    f"This {HEADER} was used for another request: choose a new one.", param=HEADER
                )
            if row is not None and row.path is not None:
                session.expunge(row)
                return row
            if row is not None and row.lease_expires_at > now:
                raise IdempotencyInUseError(
                    f"A request with this {HEADER} is being worked on: ask again soon.",
                    retry_after_s=2.0,
                )
            session.merge(
                IdempotentAnswer(
                    owner=owner,
                    key=key,
                    body_sha256=digest,
                    lease_token=claim.token,
                    lease_expires_at=now + LEASE_S,
                    expires_at=now + self._lifetime_s,
                    path=None,
                    media_type=None,
                )
            )
        return claim

    def _keep(self, claim: Claim, path: str, media_type: str, lifetime_s: float) -> None:
        with self._database.write() as session:
            session.execute(
                update(IdempotentAnswer)
                .where(*_mine(claim))
                .values(path=path, media_type=media_type, expires_at=now_s() + lifetime_s)
            )

    def _give_back(self, claim: Claim) -> None:
        with self._database.write() as session:
            session.execute(
                delete(IdempotentAnswer).where(*_mine(claim), IdempotentAnswer.path.is_(None))
            )

    def _forget(self, owner: str, key: str) -> None:
        with self._database.write() as session:
            session.execute(
                delete(IdempotentAnswer).where(
                    IdempotentAnswer.owner == owner, IdempotentAnswer.key == key
                )
            )

    def _delete_expired(self) -> int:
        with self._database.write() as session:
            old = delete(IdempotentAnswer).where(IdempotentAnswer.expires_at < now_s())
            return len(session.execute(old.returning(IdempotentAnswer.key)).all())

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            # a database that is away for a moment costs a renewal, not the picture
            with suppress(DatabaseUnavailableError):
                await asyncio.to_thread(self._extend, claim)

    def _extend(self, claim: Claim) -> None:
        with self._database.write() as session:
            session.execute(
                update(IdempotentAnswer)
                .where(*_mine(claim))
                .values(lease_expires_at=now_s() + LEASE_S)
            )


def check_key(key: str) -> None:
    """Refuse an Idempotency-Key that cannot be kept.

    Args:
        key: What the client sent.

    Raises:
        InputError: If it is empty, too long, or not printable ASCII.
    """
    if not 1 <= len(key) <= MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        raise InputError(
            f"{HEADER} must be 1 to {MAX_KEY_CHARS} printable ASCII characters.", param=HEADER
        )


def _mine(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotentAnswer.owner == claim.owner,
        IdempotentAnswer.key == claim.key,
        IdempotentAnswer.lease_token == claim.token,
    )
