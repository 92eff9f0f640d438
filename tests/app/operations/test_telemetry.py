import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from app.operations.telemetry import configure_logging
from app.settings import Settings
from app.weights.warm_up import warm_up
from core.errors import ConfigError, InputError
from tests.app.conftest import SteppedPainter, running_server

PROMPT = "a very private apple"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    root.handlers = []
    configure_logging(Settings(), stream)
    yield stream
    root.handlers, root.level = handlers, level


def _lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_request_leaves_one_line_with_its_id_and_never_its_prompt(
    stepped: SteppedPainter, log: io.StringIO
) -> None:
    with running_server(stepped) as running:
        url = f"{running.base_url}/images/generations"
        body = {"prompt": PROMPT, "seed": 3, "user": "u-7"}
        answer = httpx2.post(url, json=body, headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        forged = httpx2.post(url, json=body, headers={"x-request-id": 'x" y'})
        assert forged.headers["x-request-id"].startswith("req_")
    mine = [line for line in _lines(log) if line.get("request_id") == "mine-1"]
    assert [line["event"] for line in mine] == ["generation", "request"]
    assert (mine[0]["user"], mine[0]["seed"]) == ("u-7", 3)
    assert (mine[1]["status"], mine[1]["method"]) == (200, "POST")
    assert "private" not in log.getvalue()


def test_prompts_are_logged_on_request(stepped: SteppedPainter, log: io.StringIO) -> None:
    with running_server(stepped, log_prompts=True) as running:
        httpx2.post(f"{running.base_url}/images/generations", json={"prompt": PROMPT})
    assert PROMPT in log.getvalue()


def test_a_bug_is_logged_once_with_its_traceback_but_no_values(
    stepped: SteppedPainter, log: io.StringIO
) -> None:
    with running_server(stepped) as running:
        stepped.failure = RuntimeError("broken")
        answer = httpx2.post(f"{running.base_url}/images/generations", json={"prompt": PROMPT})
    bugs = [line for line in _lines(log) if "exception" in line]
    assert [line["request_id"] for line in bugs] == [answer.headers["x-request-id"]]
    assert bugs[0]["exception"][0]["exc_value"] == "broken"
    assert "private" not in log.getvalue()


def test_probes_do_not_fill_the_log(stepped: SteppedPainter, log: io.StringIO) -> None:
    with running_server(stepped) as running:
        assert httpx2.get(f"http://127.0.0.1:{running.port}/livez").status_code == 200
    assert "/livez" not in [line.get("path") for line in _lines(log)]


def test_a_failed_warm_up_says_what_the_answer_said(stepped: SteppedPainter) -> None:
    with running_server(stepped) as running:
        stepped.failure = InputError("This model reads no words.")
        with pytest.raises(ConfigError, match="reads no words"):
            asyncio.run(warm_up(running.app, ["default"]))
        stepped.failure = None
