"""Somebody is told, verifiably, again until they listen, and nobody who must not be reached."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from typing import Any, ClassVar

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from sqlalchemy import select, update

from app.batches import webhooks
from app.batches.webhooks import RETRY_AFTER_S, WebhookSender, check_target, is_public, key_of
from app.storage.tables import WebhookDelivery
from core.errors import ConfigError, InputError
from tests.app.batches.conftest import Lab, line

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Listener(BaseHTTPRequestHandler):
    status: ClassVar[int] = 204
    heard: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.status)
        self.send_header("location", "http://169.254.169.254/")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[str]:
    Listener.heard, Listener.status = [], 204
    server = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?x=1"
    server.shutdown()
    thread.join()
    server.server_close()


def sender(lab: Lab, *, allow_private: bool = True) -> WebhookSender:
    return WebhookSender(lab.database, secret=SECRET, allow_private=allow_private)


def delivery(lab: Lab) -> WebhookDelivery:
    with lab.database.read() as session:
        return session.scalars(select(WebhookDelivery)).one()


def make_due(lab: Lab) -> None:
    with lab.database.write() as session:
        session.execute(update(WebhookDelivery).values(next_try_at=0.0))


def fail_a_batch(lab: Lab, url: str) -> str:
    return lab.accepted(b"nonsense", webhook_url=url).id


def test_openais_client_verifies_what_we_send(lab: Lab, listener: str) -> None:
    batch_id = fail_a_batch(lab, listener)
    assert sender(lab).send_next()
    [(headers, body)] = Listener.heard
    client = OpenAI(api_key="none")
    event = client.webhooks.unwrap(body, headers, secret=SECRET)
    assert (event.type, event.data.id) == ("batch.failed", batch_id)
    with pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.unwrap(body.replace(b"failed", b"completed"), headers, secret=SECRET)
    seen = delivery(lab)
    assert (seen.state, seen.tries, seen.last_status) == ("delivered", 1, 204)
    assert not sender(lab).send_next()


def test_it_is_told_again_later_and_later_under_the_same_id(lab: Lab, listener: str) -> None:
    fail_a_batch(lab, listener)
    Listener.status = 500
    for wait_s in (*RETRY_AFTER_S, None):
        make_due(lab)
        tried_at = time.time()
        assert sender(lab).send_next()
        if wait_s is not None:
            assert wait_s <= delivery(lab).next_try_at - tried_at <= 1.2 * wait_s + 30
    assert delivery(lab).state == "failed"
    make_due(lab)
    assert not sender(lab).send_next()
    assert len({headers["webhook-id"] for headers, _ in Listener.heard}) == 1


@pytest.mark.parametrize(
    ("status", "state"), [(302, "pending"), (410, "failed"), (204, "delivered")]
)
def test_a_redirect_is_not_followed_and_gone_is_final(
    lab: Lab, listener: str, status: int, state: str
) -> None:
    fail_a_batch(lab, listener)
    Listener.status = status
    sender(lab).send_next()
    assert (delivery(lab).state, len(Listener.heard)) == (state, 1)


def test_nobody_on_a_private_address_is_told(lab: Lab, listener: str) -> None:
    fail_a_batch(lab, listener)
    assert sender(lab, allow_private=False).send_next()
    assert Listener.heard == []
    assert delivery(lab).state == "pending"
    fooled = listener.replace("http://127.0.0.1", "https://localhost.localdomain")
    with lab.database.write() as session:
        session.execute(update(WebhookDelivery).values(url=fooled, next_try_at=0.0))
    sender(lab, allow_private=False).send_next()
    assert Listener.heard == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/",
        "https://printer.local/",
        "https://user:word@example.org/",
        "https://exa mple.org/",
        "https://example.org/\r\nx: y",
        "https:///path",
        "https://[/",
        "ftp://example.org/",
        "https://example.org/" + "x" * 2000,
    ],
)
def test_addresses_that_must_not_be_told_are_refused_at_once(url: str) -> None:
    with pytest.raises(InputError):
        check_target(url, allow_private=False)


def test_public_addresses_are_fine_and_private_ones_by_setting() -> None:
    assert check_target("https://example.org/a?b", allow_private=False).port == 443
    assert check_target("http://10.0.0.1:81/", allow_private=True).port == 81
    assert is_public(ip_address("2606:4700::1111"))
    assert not is_public(ip_address("2002:a00:1::"))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!", "whsec_c2hvcnQ=", SECRET[6:]])
def test_a_secret_that_is_none_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ConfigError, match="whsec_"):
        key_of(secret)


def test_every_ending_is_told(lab: Lab) -> None:
    url = "https://example.org/"
    done = lab.accepted(line("a"), webhook_url=url)
    lab.batches.cancel(done.id, owner=done.owner)
    lab.run_stages()
    event = delivery(lab)
    assert event.event == "batch.cancelled"
    assert json.loads(event.body)["data"] == {"id": done.id}


def test_a_name_that_cannot_be_looked_up_is_refused_or_noted_as_a_try(lab: Lab) -> None:
    for host in ("a" * 70 + ".example.com", "a..b.com"):
        with pytest.raises(InputError, match="no URL"):
            check_target(f"https://{host}/x", allow_private=False)
    fail_a_batch(lab, "https://example.org/")
    with lab.database.write() as session:
        session.execute(update(WebhookDelivery).values(url="https://a..b.com/"))
    assert sender(lab).send_next()  # accepted before names were checked
    assert "a..b.com" in str(delivery(lab).last_error)


def test_somebody_who_drips_is_cut_off_and_comes_after_those_never_tried(
    lab: Lab, listener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                while not stop.wait(0.05):
                    with suppress(OSError):
                        connection.sendall(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        fail_a_batch(lab, f"http://127.0.0.1:{server.getsockname()[1]}/")
        started = time.monotonic()
        assert sender(lab).send_next()
        assert time.monotonic() - started < 2
        stop.set()
        thread.join()
    assert delivery(lab).last_error == "There was no answer within 0.3 s."
    fail_a_batch(lab, listener)
    make_due(lab)
    assert sender(lab).send_next()
    assert len(Listener.heard) == 1
