"""A real socket is closed at every stage; the engine's own counters prove that the work stopped."""

import json
import random
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx2
import pytest

from tests.app.conftest import RunningServer, SteppedPainter, running_server, until

BODY = {"prompt": "a red apple", "steps": 10, "seed": 1}
NUM_TRIES = 100


def _open(running: RunningServer, **fields: object) -> socket.socket:
    body = json.dumps(BODY | fields).encode()
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.sendall(
        b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Bearer %s\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (running.token.encode(), len(body), body)
    )
    return connection


def _hang_up(connection: socket.socket, *, hard: bool) -> None:
    if hard:  # a reset, as when a machine goes down, not a polite end
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_work_stops_before_its_next_step_whenever_its_caller_leaves(
    stepped: SteppedPainter,
) -> None:
    """Waiting, in its first step, in a later one; streamed or not; politely or by a reset."""
    chance = random.Random(7)  # noqa: S311
    with running_server(stepped, queue_capacity=8) as running:
        counters = running.counters
        cancelled, passes, num_expected = counters.cancelled, counters.passes, 0
        for number in range(NUM_TRIES):
            num_steps = chance.randrange(4)
            num_expected += num_steps + 1
            stepped.stop_before_each_step()
            connection = _open(running, stream=bool(number % 2), n=chance.choice([1, 2]))
            stepped.allow(num_steps)
            until(partial(_has_begun, stepped, num_steps + 1))
            _hang_up(connection, hard=chance.random() < 0.5)
            until(partial(_has_cancelled, running, cancelled + number + 1))
            stepped.allow(1)  # ends the step that was under way when the caller left
            until(partial(_has_ended, stepped, num_steps + 1))
        stepped.run_freely()
        url = f"{running.base_url}/images/generations"
        assert httpx2.post(url, json=BODY, timeout=30).status_code == 200
        assert counters.cancelled - cancelled == NUM_TRIES
        assert counters.passes - passes == num_expected + BODY["steps"]


def test_a_caller_who_hangs_up_while_waiting_frees_the_place(stepped: SteppedPainter) -> None:
    url = "{}/images/generations"
    with running_server(stepped, queue_capacity=1) as running, ThreadPoolExecutor(2) as pool:
        stepped.stop_before_each_step()
        post = lambda: httpx2.post(url.format(running.base_url), json=BODY, timeout=30)  # noqa: E731
        working = pool.submit(post)
        until(lambda: stepped.passes_begun == 1)
        connection = _open(running)
        until(lambda: running.service.host.state().num_waiting == 1)
        connection.close()
        until(lambda: running.service.host.state().num_waiting == 0)
        next_one = pool.submit(post)
        until(lambda: running.service.host.state().num_waiting == 1)
        stepped.run_freely()
        assert working.result().status_code == 200
        assert next_one.result().status_code == 200


@pytest.mark.parametrize("num_bytes", [0, 40, 200, 240])
def test_a_caller_who_leaves_before_the_body_is_whole_costs_nothing(
    stepped: SteppedPainter, num_bytes: int
) -> None:
    with running_server(stepped) as running:
        taken = running.counters.requests
        body = json.dumps(BODY).encode()
        request = (
            b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (999, body)
        )
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(request[:num_bytes])
        url = f"{running.base_url}/images/generations"
        assert httpx2.post(url, json=BODY, timeout=30).status_code == 200
        assert running.counters.requests == taken + 1


def test_a_reader_who_leaves_between_two_events_stops_the_rest(stepped: SteppedPainter) -> None:
    with running_server(stepped) as running:
        stepped.stop_before_each_step()
        cancelled = running.counters.cancelled
        connection = _open(running, stream=True, partial_images=3, n=2)
        stepped.allow(3)
        received = b""
        while b"partial_image" not in received:
            received += connection.recv(65_536)
        until(lambda: stepped.passes_begun == 4)
        connection.close()
        until(lambda: running.counters.cancelled == cancelled + 1)
        stepped.run_freely()
        until(lambda: running.service.host.state().is_idle)
        assert stepped.passes_begun == 4
        metrics = httpx2.get(f"http://127.0.0.1:{running.port}/metrics").text
        assert "fewstroke_disconnects_total 1.0" in metrics


def test_a_slow_body_is_given_up(stepped: SteppedPainter) -> None:
    with running_server(stepped, body_timeout_s=0.3) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(
                b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
            )
            connection.settimeout(20)
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))  # until it is closed
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"body_too_slow" in answer


def _has_begun(stepped: SteppedPainter, num_passes: int) -> bool:
    return stepped.passes_begun == num_passes


def _has_ended(stepped: SteppedPainter, num_passes: int) -> bool:
    return stepped.passes_ended == num_passes


def _has_cancelled(running: RunningServer, num_requests: int) -> bool:
    return running.counters.cancelled == num_requests
