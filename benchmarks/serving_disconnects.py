"""Sockets that are closed while their picture is painted, through the whole server."""

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.engine_host import EngineHost
from app.main import create_app, load_painter, make_server, take_port
from app.settings import Settings

STEPS = 100
PATIENCE_S = 120.0


def measure_disconnects(model: Path, num_sockets: int, *, seed: int = 0) -> dict[str, float]:
    """Close sockets at random moments of their request and count the work that went on.

    The server runs in this process, with all of its middleware and on a real socket, so that its
    counters can be read at the moment of the close. Every third request streams.

    Args:
        model: Diffusers folder.
        num_sockets: How many to close.
        seed: Of the moments.

    Returns:
        disconnect_stopped: Requests that left the engine with at most one more step begun after
            the close, which itself takes part of a step to arrive.
        disconnect_tried: Requests in all.
    """
    moments = random.Random(seed)  # noqa: S311  (no secret)
    with TemporaryDirectory() as data_dir:
        settings = Settings(
            model=str(model), device="cpu", port=0, data_dir=data_dir, drain_timeout_s=1
        )
        with _serving(settings) as (host, port):
            stopped = 0
            for number in range(num_sockets):
                wait_s = moments.uniform(0, 0.6)
                stopped += _is_stopped(host, port, wait_s, is_streamed=number % 3 == 0)
    return {"disconnect_stopped": stopped, "disconnect_tried": num_sockets}


def _is_stopped(host: EngineHost, port: int, wait_s: float, *, is_streamed: bool) -> bool:
    counters = host.intake.counters
    before = counters.requests, counters.cancelled, counters.finished
    body = {"prompt": "a red apple", "steps": STEPS, "seed": 1, "stream": is_streamed}
    connection = _send(port, body)
    _wait(lambda: counters.requests > before[0])
    time.sleep(wait_s)
    steps = counters.steps + counters.dropped_steps
    connection.close()
    _wait(lambda: host.state().is_idle)
    more = counters.steps + counters.dropped_steps - steps
    gone = counters.cancelled == before[1] + 1 and counters.finished == before[2]
    # One pass was under way when the socket was closed, and one may have begun before it was seen.
    return gone and more <= 2


def _send(port: int, fields: dict[str, object]) -> socket.socket:
    body = json.dumps(fields).encode()
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(
        b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    return connection


@contextmanager
def _serving(settings: Settings) -> Iterator[tuple[EngineHost, int]]:
    painter = load_painter(settings, settings.model, None)
    with take_port(settings) as listener:
        app = create_app(settings, {painter.info.variant: painter})
        server = make_server(app, settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            _wait(lambda: server.started and app.state.service.readiness.is_ready)
            yield app.state.service.host, int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def _wait(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.002)
