"""Requests that nobody would write, by schema and by raw bytes: never a 5xx, never a hang."""

import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.app.conftest import RunningServer, SteppedPainter, running_server

NUM_RAW = 300
"""Raw requests in the default run; `FUZZ_RAW` asks for another number."""


@pytest.fixture(scope="module")
def running() -> Iterator[RunningServer]:
    with running_server(SteppedPainter(), max_steps=20, body_timeout_s=2) as server:
        yield server


@pytest.fixture
def answers(record_property: Callable[[str, object], None]) -> Iterator[list[int]]:
    """Status codes that a test saw, written into the report however it ends."""
    seen: list[int] = []
    yield seen
    record_property("calls", len(seen))
    record_property("server_errors", sum(status >= 500 for status in seen))


@pytest.mark.slow
def test_whatever_the_schema_allows_or_forbids_is_answered_in_its_terms(
    running: RunningServer, answers: list[int]
) -> None:
    root = f"http://127.0.0.1:{running.port}"
    document = schemathesis.openapi.from_dict(httpx2.get(f"{root}/openapi.json").json())
    document.config.update(base_url=root)
    num_examples = int(os.environ.get("FUZZ_EXAMPLES", "2"))
    for found in document.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=num_examples,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: schemathesis.Case) -> None:
                response = case.call(timeout=30)
                answers.append(response.status_code)
                checks = [not_a_server_error, response_schema_conformance, _has_the_envelope]
                case.validate_response(response, checks=checks)

            with suppress(Unsatisfiable):  # nothing can be wrong with a request without parts
                ask()
    assert len(answers) > 10 * num_examples


def _has_the_envelope(context: object, response: object, case: object) -> None:
    """Every answer that is no success has OpenAI's envelope."""
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if response.status_code >= 400:
        assert kind == "application/json", kind
        body = json.loads(response.content)
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}


def test_raw_bytes_never_break_or_block_the_server(
    running: RunningServer, answers: list[int]
) -> None:
    chance = random.Random(11)  # noqa: S311
    num_requests = int(os.environ.get("FUZZ_RAW", NUM_RAW))
    for _ in range(num_requests):
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
            connection.sendall(_mutant(chance))
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := connection.recv(65_536):
                answer += chunk
        answers.append(int(answer.split(b" ", 2)[1]) if answer else 0)
        assert answers[-1] < 500, answer[:300]
    root = f"http://127.0.0.1:{running.port}"
    assert httpx2.get(f"{root}/readyz").status_code == 200
    assert 'status="500"' not in httpx2.get(f"{root}/metrics").text


def _mutant(chance: random.Random) -> bytes:
    body = json.dumps({"prompt": "a red apple", "n": 1, "size": "128x128", "seed": 3}).encode()
    body = _damaged(body, chance) if chance.random() < 0.7 else body
    length = chance.choice([len(body), len(body), len(body), 0, -1, 10**12, len(body) + 5])
    headers = [
        b"Host: localhost",
        b"Content-Type: application/json",
        b"Content-Length: %d" % length,
        b"Connection: close",
        chance.choice(
            [
                b"X-Request-Id: " + bytes(chance.choices(range(1, 256), k=20)),
                b"Idempotency-Key: " + b"k" * chance.choice([0, 1, 255, 256, 5000]),
                b"X-Stainless-Read-Timeout: nan",
                b"Authorization: Bearer " + b"\xff" * 40,
                b"Transfer-Encoding: chunked",
                b"X-Long: " + b"x" * 70_000,
                b"Expect: 100-continue",
            ]
        ),
    ]
    path = chance.choice(
        [
            b"/v1/images/generations",
            b"/v1/images/generations",
            b"/v1/images/content/%2e%2e%2f%2e%2e%2fetc%2fpasswd?signature=x",
            b"/v1/images/content/1800000000-" + b"0" * 32 + b".png?signature=%ff%00",
            b"/v1/models/%00",
            b"/" + bytes(chance.choices(range(33, 127), k=30)),
        ]
    )
    method = chance.choice([b"POST", b"POST", b"GET", b"PATCH", b"\x00"])
    request = method + b" " + path + b" HTTP/1.1\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body
    return _damaged(request, chance) if chance.random() < 0.2 else request


def _damaged(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(damaged))
        damaged[place] = chance.randrange(256)
    return bytes(damaged[: chance.randrange(1, len(damaged) + 1)])
