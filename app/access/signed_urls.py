"""Links to pictures: who holds one may fetch that picture until it expires, and nothing else."""

import base64
import hashlib
import hmac
import re
from uuid import uuid4

from app.errors import LinkExpiredError, LinkRefusedError
from app.storage.blobs import BlobStore

FOLDER = "images"
SECONDS_PER_FOLDER = 3600
CONTENT_PATH = "/v1/images/content"

_NAME = re.compile(r"(?P<expires_at>[0-9]{10,12})-[0-9a-f]{32}\.(?P<kind>png|webp|jpeg)", re.ASCII)


class PictureLinks:
    """Stores pictures under links that carry their own permission.

    A picture's name holds its expiry; the signature covers the name. Nothing is looked up, so a
    link resolves on every replica that shares the storage and the secret.

    Args:
        store: Where the pictures lie.
        secret: Key of the signatures, at least 32 bytes.
        lifetime_s: How long a link works, in seconds.
    """

    def __init__(self, store: BlobStore, secret: bytes, *, lifetime_s: int) -> None:
        assert len(secret) >= 32
        self._store = store
        self._secret = secret
        self._lifetime_s = lifetime_s

    async def publish(self, content: bytes, kind: str, *, now: float, base_url: str) -> str:
        """Store a picture and return its link.

        Args:
            content: The file.
            kind: "png", "webp" or "jpeg".
            now: Unix seconds.
            base_url: Where clients reach this service, without a path.

        Returns:
            A URL. StorageUnavailableError says that the picture could not be stored.
        """
        name = f"{int(now) + self._lifetime_s}-{uuid4().hex}.{kind}"
        await self._store.write(_blob(name), content)
        return f"{base_url.rstrip('/')}{CONTENT_PATH}/{name}?signature={self.sign(name)}"

    async def fetch(self, name: str, signature: str, *, now: float) -> tuple[bytes, str, int]:
        """Return the picture behind a link.

        Args:
            name: Last part of the link's path.
            signature: The link's signature.
            now: Unix seconds.

        Returns:
            The file, its kind, and for how many seconds the link goes on working.

        Raises:
            LinkRefusedError: If the signature is not ours for this name.
            LinkExpiredError: If the link is too old, or its picture is gone.
        """
        match = _NAME.fullmatch(name)
        is_ours = hmac.compare_digest(
            self.sign(name).encode(), signature.encode("utf-8", "replace")
        )
        if match is None or not is_ours:
            raise LinkRefusedError("This link is not signed by this service.", param="signature")
        remaining_s = int(match["expires_at"]) - int(now)
        content = await self._store.read(_blob(name)) if remaining_s > 0 else None
        if content is None:
            raise LinkExpiredError("This link has expired. Ask for the picture again by its seed.")
        return content, match["kind"], remaining_s

    async def sweep(self, now: float) -> int:
        """Delete the pictures whose links have all expired.

        Args:
            now: Unix seconds.

        Returns:
            How many folders, one for each hour, were deleted.
        """
        hours = [name for name in await self._store.names(FOLDER) if name.isdigit()]
        old = [hour for hour in hours if (int(hour) + 1) * SECONDS_PER_FOLDER < now]
        for hour in old:
            await self._store.delete(f"{FOLDER}/{hour}")
        return len(old)

    def sign(self, name: str) -> str:
        """Return the signature of a picture's name, in base64 for URLs.

        Args:
            name: Last part of a link's path, of whatever content.
        """
        mac = hmac.new(self._secret, name.encode("utf-8", "replace"), hashlib.sha256)
        return base64.urlsafe_b64encode(mac.digest()).decode("ascii").rstrip("=")


def _blob(name: str) -> str:
    hour = int(name.partition("-")[0]) // SECONDS_PER_FOLDER
    return f"{FOLDER}/{hour}/{name}"
