"""What the figures of the service are made of."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.load_client import Seen, press
from benchmarks.serving_overload import Ledger


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=300))
def test_quantiles_are_times_that_were_seen(seconds: list[float]) -> None:
    seen = Seen(seconds=seconds, elapsed_s=1.0)
    assert seen.quantile_s(0.99) in seconds
    assert seen.quantile_s(1.0) == max(seconds)
    assert sum(each <= seen.quantile_s(0.5) for each in seconds) >= len(seconds) / 2


def test_turns_add_up() -> None:
    seen = Seen(seconds=[1.0, 2.0], elapsed_s=3.0)
    seen.add(Seen(seconds=[3.0, 4.0], elapsed_s=1.0, failures=[429]))
    assert (seen.rps, seen.median_s, seen.failures) == (1.0, 2.5, [429])


def test_a_refusal_is_honest_if_those_inside_are_done_within_a_factor_of_two() -> None:
    painted = [(0.0, 10.0), (1.0, 20.0), (30.0, 31.0)]
    honest, hasty, lazy = (5.0, 14.0), (5.0, 4.0), (5.0, 40.0)
    for refused, share in ((honest, 1.0), (hasty, 0.0), (lazy, 0.0)):
        assert Ledger(painted=painted, refused=[refused]).honest_share() == share
    assert Ledger(painted=painted, refused=[honest, hasty]).honest_share() == 0.5


class _Counting(BaseHTTPRequestHandler):
    inside = 0
    most_inside = 0
    answered: ClassVar[Counter[int]] = Counter()
    lock = threading.Lock()

    def do_POST(self) -> None:
        cls = type(self)
        with cls.lock:
            cls.inside += 1
            cls.most_inside = max(cls.most_inside, cls.inside)
        self.rfile.read(int(self.headers["content-length"]))
        threading.Event().wait(0.01)
        with cls.lock:
            cls.inside -= 1
            number = sum(cls.answered.values())
            status = 429 if number % 4 == 3 else 200
            cls.answered[status] += 1
        body = b'{"data": [{"b64_json": "AA=="}]}'
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def counting_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Counting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def test_clients_ask_as_often_and_as_many_at_once_as_told(counting_url: str) -> None:
    seen = asyncio.run(press(counting_url, num_clients=3, num_requests=20, steps=1, guidance=1.0))
    assert _Counting.answered == {200: 15, 429: 5}
    assert (len(seen.seconds), seen.failures) == (15, [429] * 5)
    assert 2 <= _Counting.most_inside <= 3
    assert all(0 < each <= seen.elapsed_s for each in seen.seconds)
