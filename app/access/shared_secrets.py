"""Secrets that all replicas share: made once, at random, kept in the database."""

import base64
import secrets
from contextlib import suppress

from sqlalchemy.exc import IntegrityError

from app.storage.database import Database
from app.storage.tables import Secret

NUM_BYTES = 32


def shared_secret(database: Database, name: str) -> bytes:
    """Return a secret, making it if no replica has done so.

    Args:
        database: Where it is kept.
        name: What it is for.

    Returns:
        32 random bytes, the same ones on every replica and after every restart.
    """
    found = _read(database, name)
    if found is None:
        # if another replica was first, its secret counts
        with suppress(IntegrityError), database.write() as session:
            session.add(Secret(name=name, value=secrets.token_urlsafe(NUM_BYTES)))
        found = _read(database, name)
    assert found is not None
    return found


def _read(database: Database, name: str) -> bytes | None:
    with database.read() as session:
        row = session.get(Secret, name)
        return None if row is None else base64.urlsafe_b64decode(row.value + "=")
