"""How large a request may be."""

import socket

import httpx2
import pytest

from tests.app.conftest import SteppedPainter, running_server

LIMIT = 4096


@pytest.mark.parametrize("num_bytes", [LIMIT + 1, 20_000, 200_000])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_head_that_is_too_large_is_refused_however_it_arrives(
    stepped: SteppedPainter, num_bytes: int, *, is_whole: bool
) -> None:
    with running_server(stepped, max_header_bytes=LIMIT) as server:
        head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * num_bytes + b"\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            pieces = [head] if is_whole else [head[:3000], head[3000:]]
            for piece in pieces:
                connection.sendall(piece)
            answer = connection.recv(65_536)
        assert answer.split()[1] in {b"431", b"400"}
        assert httpx2.get(f"{server.base_url}/models").status_code == 200


def test_a_head_just_below_the_limit_is_served_and_one_above_is_told_in_the_envelope(
    stepped: SteppedPainter,
) -> None:
    with running_server(stepped, max_header_bytes=LIMIT) as server:
        url = f"{server.base_url}/models"
        assert httpx2.get(url, headers={"x-long": "x" * (LIMIT - 400)}).status_code == 200
        refused = httpx2.get(url, headers={"x-long": "x" * (LIMIT + 400)})
    if refused.status_code == 431:  # it came in one piece
        assert refused.json()["error"]["code"] == "head_too_large"
    else:
        assert refused.status_code == 400
