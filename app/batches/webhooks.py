"""Telling others that a batch has ended: Standard Webhooks, as `client.webhooks.unwrap` reads them.

The event is written in the transaction that ends the batch, so it is neither lost nor made up. A
sender takes what is due, those that were never tried first, and tries again later and later until
somebody says 2xx. Several send at a time, each with a deadline, so that nobody who is slow keeps
the others waiting.
"""

import base64
import hashlib
import hmac
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.storage.database import Database
from app.storage.tables import Batch, WebhookDelivery
from core.errors import ConfigError, InputError

RETRY_AFTER_S = (5, 300, 1800, 7200, 18_000, 36_000, 36_000)
"""Seconds between tries, as Standard Webhooks proposes; after the last one it is given up."""

TIMEOUT_S = 15.0
"""Seconds until somebody must be reached, and as many until they must have answered."""
SECRET_PREFIX = "whsec_"  # noqa: S105  (what secrets begin with, not one)
MAX_URL_CHARS = 2000

_GONE = 410
_SEND_LEASE_S = 2 * TIMEOUT_S + 10  # and ten to look up the name
_NAT64 = IPv6Network("64:ff9b::/96")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class WebhookOutbox:
    """Where ended batches leave what is to be told.

    Args:
        default_url: Who is told about batches that name nobody; None for nobody.
    """

    def __init__(self, default_url: str | None = None) -> None:
        self._default_url = default_url

    def add(self, session: Session, batch: Batch, event: str) -> None:
        """Write an event down, in the transaction that makes it true.

        Args:
            session: That transaction.
            batch: What it is about.
            event: OpenAI's name of it, such as "batch.completed".
        """
        url = batch.webhook_url or self._default_url
        if url is None:
            return
        now, event_id = time.time(), f"evt_{uuid4().hex}"
        body = {
            "id": event_id,
            "object": "event",
            "created_at": int(now),
            "type": event,
            "data": {"id": batch.id},
        }
        session.add(
            WebhookDelivery(
                id=event_id,
                batch_id=batch.id,
                event=event,
                url=url,
                body=json.dumps(body),
                state="pending",
                created_at=now,
                next_try_at=now,
            )
        )


class WebhookSender:
    """Delivers what is due.

    Args:
        database: Where events wait.
        secret: Key that signs, `whsec_` and base64.
        allow_private: Whether addresses that are not on the public internet, and plain http,
            are fine.
    """

    def __init__(self, database: Database, *, secret: str, allow_private: bool) -> None:
        self._database = database
        self._key = key_of(secret)
        self._allow_private = allow_private

    def send_next(self) -> bool:
        """Try to deliver the event that is due longest.

        Returns:
            Whether there was one.
        """
        delivery = self._claim()
        if delivery is None:
            return False
        status, error = self._send(delivery)
        self._note(delivery, status, error)
        return True

    def _claim(self) -> WebhookDelivery | None:
        now = time.time()
        due = (WebhookDelivery.state == "pending") & (WebhookDelivery.next_try_at <= now)
        with self._database.read() as session:
            if session.scalar(select(WebhookDelivery.id).where(due).limit(1)) is None:
                return None
        with self._database.write() as session:
            delivery = session.scalar(
                select(WebhookDelivery)
                .where(due)
                .order_by(WebhookDelivery.tries, WebhookDelivery.next_try_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            if delivery is not None:
                # should this process die while it sends, another try follows
                delivery.next_try_at = now + _SEND_LEASE_S
                delivery.tries += 1
        return delivery

    def _send(self, delivery: WebhookDelivery) -> tuple[int | None, str | None]:
        body = delivery.body.encode()
        headers = sign(self._key, delivery.id, int(time.time()), body)
        try:
            target = check_target(delivery.url, allow_private=self._allow_private)
            status = _post(target, body, headers, allow_private=self._allow_private)
        except (OSError, HTTPException, InputError, ValueError) as error:
            return None, str(error)[:500] or type(error).__name__
        return status, None if 200 <= status < 300 else f"The answer was {status}."

    def _note(self, delivery: WebhookDelivery, status: int | None, error: str | None) -> None:
        changes: dict[str, object] = {"last_status": status, "last_error": error}
        if error is None:
            changes |= {"state": "delivered", "delivered_at": time.time()}
        elif status == _GONE or delivery.tries > len(RETRY_AFTER_S):
            changes |= {"state": "failed"}
        else:
            spread = random.uniform(1.0, 1.2)  # noqa: S311  (so that retries do not come at once)
            changes |= {"next_try_at": time.time() + spread * RETRY_AFTER_S[delivery.tries - 1]}
        with self._database.write() as session:
            session.execute(
                update(WebhookDelivery).where(WebhookDelivery.id == delivery.id).values(**changes)
            )
        log.info(
            "webhook",
            event_id=delivery.id,
            kind=delivery.event,
            tries=delivery.tries,
            status=status,
            reason=error,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Who is told.

    Attributes:
        url: The address, taken apart.
        host: Its name or IP address.
        port: Its port.
    """

    url: SplitResult
    host: str
    port: int

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return self.url.scheme == "https"


def check_target(url: str, *, allow_private: bool) -> Target:
    """Refuse an address that must not be told, as far as can be seen without asking the network.

    Args:
        url: The address.
        allow_private: Whether private addresses and plain http are fine.

    Returns:
        The address, taken apart.

    Raises:
        InputError: If it is refused.
    """
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname, parsed.port
        (host or "").encode("idna")  # as looking it up does; refuses names that cannot be
    except ValueError as error:
        raise InputError(f"{url[:80]!r} is no URL: {error}.", param="webhook_url") from error
    schemes = ("https", "http") if allow_private else ("https",)
    is_clean = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL_CHARS
    if parsed.scheme not in schemes or not host or parsed.username is not None or not is_clean:
        raise InputError(
            f"Webhooks go to {' or '.join(schemes)} URLs without a user name, not to {url[:80]!a}.",
            param="webhook_url",
        )
    if not allow_private and _is_private_name(host):
        raise InputError(
            f"{host!r} is no address on the public internet; webhooks go there only if the "
            "server's FEWSTROKE_ALLOW_PRIVATE_WEBHOOKS says so.",
            param="webhook_url",
        )
    return Target(url=parsed, host=host, port=port or (443 if parsed.scheme == "https" else 80))


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a Standard Webhook.

    Args:
        key: The shared key.
        message_id: The same for every try of one event.
        timestamp: Now, in Unix seconds.
        body: What is sent.

    Returns:
        Id, time, signature and content type.

    Source:
        Standard Webhooks 1.0, "Webhook Headers" and "Signature scheme" (symmetric, v1).
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{digest}",
        "content-type": "application/json",
        "user-agent": "fewstroke-webhooks",
    }


def key_of(secret: str) -> bytes:
    """Read a secret.

    Args:
        secret: `whsec_` and the key in base64.

    Returns:
        The key.

    Raises:
        ConfigError: If it is none, or has less than 24 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) < 24:
        raise ConfigError(
            f"The webhook secret must be {SECRET_PREFIX} and at least 24 random bytes in base64.",
            param="webhook_secret",
        )
    return key


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is on the public internet, whatever it is wrapped in.

    Args:
        address: The address.
    """
    if isinstance(address, IPv6Address):
        teredo = address.teredo
        inner = address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _is_private_name(host: str) -> bool:
    try:
        return not is_public(ip_address(host))
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


def _post(target: Target, body: bytes, headers: dict[str, str], *, allow_private: bool) -> int:
    # the address is looked up once, judged and then used: a name cannot change in between
    address = _resolve(target, allow_private=allow_private)
    connection = HTTPConnection(target.host, target.port, timeout=TIMEOUT_S)
    connected = socket.create_connection((address, target.port), timeout=TIMEOUT_S)
    connection.sock = connected
    with closing(connection), connected.dup() as line, _cut_after(TIMEOUT_S, line):
        if target.is_encrypted:
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connected, server_hostname=target.host)
        path = target.url.path or "/"
        query = f"?{target.url.query}" if target.url.query else ""
        connection.request("POST", path + query, body=body, headers=headers)
        return connection.getresponse().status  # a redirect is an answer, and is not followed


@contextmanager
def _cut_after(seconds: float, line: socket.socket) -> Iterator[None]:
    # each byte that comes resets a socket's own timeout
    is_late = threading.Event()

    def cut() -> None:
        is_late.set()
        with suppress(OSError):  # it may have ended just now
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.start()
    try:
        yield
    except (OSError, HTTPException) as error:
        if is_late.is_set():
            raise TimeoutError(f"There was no answer within {seconds:g} s.") from error
        raise
    finally:
        timer.cancel()


def _resolve(target: Target, *, allow_private: bool) -> str:
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not allow_private and not is_public(ip_address(address.partition("%")[0])):
            raise InputError(f"{target.host} is at {address}, which is not public.")
    return addresses[0]
