"""Who asks: API keys, kept as hashes, checked before a request's body is read.

A key is `fs-<id>-<secret>`. The id finds the row; of the secret, 256 random bits, only the SHA-256
is kept. A slow hash would protect nothing that can be guessed, and slow every request down.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import func, select
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import AuthenticationError
from app.storage.database import Database
from app.storage.tables import ApiKey
from core.errors import FewstrokeError, InputError, UnknownNameError

ANONYMOUS = "anonymous"
"""Owner of what is asked for without a key."""

INTERNAL = "fewstroke.internal"
"""Marks a scope that the server made itself; nothing that a client sends can set it."""

MAX_PRIORITY = 3
MAX_NAME = 200

_KEY = re.compile(r"fs-(?P<id>[0-9a-f]{12})-(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)
_GUARDED = ("/v1/", "/admin/")
_OPEN = "/v1/images/content/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who a request is served for.

    Attributes:
        id: The key's id, or `ANONYMOUS`; owns files, batches and stored answers.
        name: What the operator called the key.
        is_admin: Whether it may change what is served.
        is_limited: Whether it has a rate or a quota.
        max_priority: Highest `priority` that it may ask for.
    """

    id: str = ANONYMOUS
    name: str = ""
    is_admin: bool = False
    is_limited: bool = False
    max_priority: int = MAX_PRIORITY


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyLimits:
    """What a new key may do.

    Attributes:
        is_admin: Whether it may change what is served.
        requests_per_minute: Requests a minute; None for any number.
        quota_units: Cost units (image tokens times steps) in a window; None for any number.
        quota_window_s: Length of that window, in seconds.
        max_priority: Highest `priority` that it may ask for, -3..3.
        lifetime_s: Seconds until it stops working; None for never.
    """

    is_admin: bool = False
    requests_per_minute: int | None = None
    quota_units: float | None = None
    quota_window_s: int = 86_400
    max_priority: int = 0
    lifetime_s: float | None = None


class KeyRing:
    """The API keys of a service.

    Args:
        database: Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, limits: KeyLimits) -> str:
        """Make a key.

        Args:
            name: What the operator calls it.
            limits: What it may do.

        Returns:
            The key. It is not kept, and cannot be shown again.

        Raises:
            InputError: If the name is empty or too long.
        """
        if not 1 <= len(name.strip()) <= MAX_NAME:
            raise InputError(f"Name a key in 1 to {MAX_NAME} characters.", param="name")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        now = time.time()
        row = ApiKey(
            id=key_id,
            name=name,
            digest=_digest(secret),
            is_admin=limits.is_admin,
            requests_per_minute=limits.requests_per_minute,
            quota_units=limits.quota_units,
            quota_window_s=limits.quota_window_s,
            max_priority=limits.max_priority,
            created_at=now,
            expires_at=None if limits.lifetime_s is None else now + limits.lifetime_s,
        )
        with self._database.write() as session:
            session.add(row)
        return f"fs-{key_id}-{secret}"

    def listed(self) -> list[ApiKey]:
        """Return every key that was ever made, the oldest first."""
        with self._database.read() as session:
            rows = list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))
            session.expunge_all()
        return rows

    def revoke(self, key_id: str) -> None:
        """Stop a key from working, at once and on every replica.

        Args:
            key_id: Its id, or the whole key.

        Raises:
            UnknownNameError: If there is no such key.
        """
        match = _KEY.fullmatch(key_id)
        wanted = match["id"] if match else key_id
        with self._database.write() as session:
            row = session.get(ApiKey, wanted)
            if row is None:
                known = session.scalars(select(ApiKey.id)).all()
                raise UnknownNameError("key", wanted, known, param="key_id")
            row.revoked_at = row.revoked_at or time.time()

    def count(self) -> tuple[int, int]:
        """Return how many keys work now, and how many were ever made."""
        with self._database.read() as session:
            num_made = session.scalar(select(func.count()).select_from(ApiKey)) or 0
            keys = session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None))).all()
            return sum(_works(key) for key in keys), num_made

    def identify(self, token: str) -> Caller:
        """Tell whose key this is.

        Args:
            token: What the client sent.

        Returns:
            Its owner.

        Raises:
            AuthenticationError: If it is no key of ours, was revoked, or has expired.
        """
        match = _KEY.fullmatch(token)
        row = None
        if match is not None:
            with self._database.read() as session:
                row = session.get(ApiKey, match["id"])
                session.expunge_all()
        # a key that is unknown takes as long as one that is wrong
        expected = row.digest if row is not None else _digest("")
        is_right = hmac.compare_digest(expected, _digest(match["secret"] if match else token))
        if row is None or not is_right:
            raise AuthenticationError("This API key is not known here: check it for typing errors.")
        if not _works(row):
            raise AuthenticationError("This API key was revoked or has expired: ask for a new one.")
        return _caller_of(row)

    def find(self, key_id: str) -> Caller:
        """Return whom a key stands for that let a batch in earlier.

        Args:
            key_id: Its id.

        Raises:
            AuthenticationError: If it was revoked or has expired since.
        """
        with self._database.read() as session:
            row = session.get(ApiKey, key_id)
            session.expunge_all()
        if row is None or not _works(row):
            raise AuthenticationError("The API key of this batch was revoked or has expired.")
        return _caller_of(row)


Refuse = Callable[[Request, FewstrokeError], Awaitable[ASGIApp]]


class AuthMiddleware:
    """Lets a request under `/v1/` or `/admin/` in only with a key, once the server has keys.

    It stands before the body is read, so that strangers cost nothing. Links to pictures carry
    their own signature.

    Args:
        app: What comes behind.
        refuse: Turns an error into the answer.
    """

    def __init__(self, app: ASGIApp, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection.

        Args:
            scope: ASGI's description of the request.
            receive: Where the body comes from.
            send: Where the answer goes.
        """
        if scope["type"] == "http" and is_guarded(scope["path"]):
            service = scope["app"].state.service
            try:
                caller = await self._identify(scope, service.keys, asks_for_keys=service.needs_key)
            except FewstrokeError as error:
                answer = await self._refuse(Request(scope), error)
                await answer(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope, keys: KeyRing, *, asks_for_keys: bool) -> Caller:
        if scope.get(INTERNAL):
            return Caller(id="internal", name="internal")
        token = bearer_token(Headers(scope=scope))
        if not asks_for_keys:
            return Caller()
        if token is None:
            raise AuthenticationError(
                "This server asks for an API key: send `Authorization: Bearer fs-...`. Its "
                "operator makes one with `fewstroke keys create`."
            )
        return await asyncio.to_thread(keys.identify, token)


def is_guarded(path: str) -> bool:
    """Return whether a path needs a key.

    Args:
        path: Decoded path of a request.
    """
    return path.startswith(_GUARDED) and not path.startswith(_OPEN)


def bearer_token(headers: Headers) -> str | None:
    """Return the key that a request carries, if any.

    Args:
        headers: Its headers.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _works(key: ApiKey) -> bool:
    is_over = key.expires_at is not None and key.expires_at <= time.time()
    return key.revoked_at is None and not is_over


def _caller_of(row: ApiKey) -> Caller:
    return Caller(
        id=row.id,
        name=row.name,
        is_admin=row.is_admin,
        is_limited=row.requests_per_minute is not None or row.quota_units is not None,
        max_priority=row.max_priority,
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
