"""What happens under load, and when the server goes; who leaves is in test_disconnect.py."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2
import openai
import pytest
from openai import OpenAI

from core.errors import DeviceMemoryError, NumericsError
from tests.app.conftest import RunningServer, SteppedPainter, running_server, until

BODY = {"prompt": "a red apple", "steps": 10, "seed": 1}


def _post(running: RunningServer, headers: dict[str, str] | None = None, **fields: object):
    url = f"{running.base_url}/images/generations"
    return httpx2.post(url, json=BODY | fields, headers=headers, timeout=30)


def test_a_full_queue_answers_429_with_the_time_its_work_will_take(
    stepped: SteppedPainter,
) -> None:
    with running_server(stepped, queue_capacity=2) as running, ThreadPoolExecutor(3) as pool:
        stepped.stop_before_each_step()
        accepted = [_occupy(pool, running, stepped)]
        accepted += [pool.submit(_post, running, seed=k) for k in (2, 3)]
        until(lambda: running.service.host.state().num_waiting == 2)
        refused = _post(running)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        backlog_s = running.service.host.state().backlog_s
        assert float(refused.headers["retry-after"]) == pytest.approx(max(1.0, backlog_s), abs=1)
        with (
            OpenAI(base_url=running.base_url, api_key="none", max_retries=0) as client,
            pytest.raises(openai.RateLimitError) as caught,
        ):
            client.images.generate(prompt="a red apple")
        assert caught.value.code == "queue_full"
        stepped.run_freely()
        assert [future.result().status_code for future in accepted] == [200, 200, 200]
        assert _post(running).status_code == 200


def test_the_stock_client_waits_and_succeeds_when_the_queue_was_full(
    stepped: SteppedPainter,
) -> None:
    with running_server(stepped, queue_capacity=1) as running, ThreadPoolExecutor(3) as pool:
        stepped.stop_before_each_step()
        _occupy(pool, running, stepped)
        pool.submit(_post, running, seed=2)
        until(lambda: running.service.host.state().num_waiting == 1)
        threading.Timer(0.3, stepped.run_freely).start()
        with OpenAI(base_url=running.base_url, api_key="none", max_retries=2) as client:
            assert client.images.generate(prompt="a red apple").data


def test_what_cannot_be_done_before_the_caller_gives_up_is_refused_at_once(
    stepped: SteppedPainter,
) -> None:
    with running_server(stepped) as running, ThreadPoolExecutor(1) as pool:
        assert _post(running).status_code == 200
        stepped.stop_before_each_step()
        working = _occupy(pool, running, stepped, steps=100)
        started = time.perf_counter()
        refused = _post(running, {"x-stainless-read-timeout": "0.0001"})
        assert time.perf_counter() - started < 5
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "deadline_exceeded"
        stepped.run_freely()
        assert working.result().status_code == 200
        assert _post(running, {"x-stainless-read-timeout": "20"}).status_code == 200
        assert _post(running, {"x-stainless-read-timeout": "soon"}).status_code == 200


def test_the_server_answers_others_while_it_paints(stepped: SteppedPainter) -> None:
    with running_server(stepped) as running, ThreadPoolExecutor(1) as pool:
        stepped.stop_before_each_step()
        working = _occupy(pool, running, stepped)
        for path in ("livez", "readyz", "metrics", "v1/models"):
            started = time.perf_counter()
            assert httpx2.get(f"http://127.0.0.1:{running.port}/{path}").status_code == 200
            assert time.perf_counter() - started < 3
        stepped.run_freely()
        assert working.result().status_code == 200


def test_ready_turns_green_only_after_a_picture_went_through(stepped: SteppedPainter) -> None:
    stepped.stop_before_each_step()
    with running_server(stepped, is_warm=False) as running, ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{running.port}"
        until(lambda: stepped.passes_begun == 1)
        assert httpx2.get(f"{url}/livez").json() == {"status": "alive"}
        cold = httpx2.get(f"{url}/readyz")
        assert cold.status_code == 503
        assert cold.json()["error"]["code"] == "not_ready"
        assert cold.headers["retry-after"]
        early = pool.submit(_post, running, seed=77)
        until(lambda: running.service.host.state().num_waiting == 1)
        stepped.run_freely()
        until(lambda: running.service.readiness.is_ready)
        assert httpx2.get(f"{url}/readyz").json() == {"status": "ready"}
        assert early.result().status_code == 200


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NumericsError("NaN in step 3."), 500, "numerics_error"),
        (DeviceMemoryError("2 pictures do not fit."), 503, "out_of_memory"),
        (RuntimeError("secret"), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_in_the_model_hits_one_request_and_not_the_next(
    stepped: SteppedPainter, failure: Exception, status: int, code: str
) -> None:
    with running_server(stepped) as running:
        stepped.failure = failure
        answer = _post(running)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert answer.headers["x-request-id"]
        assert "secret" not in answer.text
        streamed = _post(running, stream=True)
        assert streamed.status_code == 200
        assert "event: error" in streamed.text
        assert f'"code": "{code}"' in streamed.text
        assert "secret" not in streamed.text
        stepped.failure = None
        assert _post(running).status_code == 200


def test_a_model_that_cannot_paint_never_becomes_ready(stepped: SteppedPainter) -> None:
    stepped.failure = NumericsError("NaN in the latents.")
    with running_server(stepped, is_warm=False) as running:
        until(lambda: "NaN" in running.service.readiness.reason)
        answer = httpx2.get(f"http://127.0.0.1:{running.port}/readyz")
        assert answer.status_code == 503
        assert "NaN in the latents." in answer.json()["error"]["message"]


def test_shutdown_finishes_what_was_accepted_and_refuses_the_rest_with_503(
    stepped: SteppedPainter,
) -> None:
    with running_server(stepped) as running, ThreadPoolExecutor(2) as pool:
        stepped.stop_before_each_step()
        working = _occupy(pool, running, stepped)
        waiting = pool.submit(_post, running, seed=2)
        until(lambda: running.service.host.state().num_waiting == 1)
        running.server.should_exit = True
        until(lambda: not running.service.readiness.is_ready)
        late = _post(running, seed=3)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
        assert late.headers["retry-after"]
        assert httpx2.get(f"http://127.0.0.1:{running.port}/readyz").status_code == 503
        assert httpx2.get(f"http://127.0.0.1:{running.port}/livez").status_code == 200
        stepped.run_freely()
        assert working.result().status_code == 200
        assert waiting.result().status_code == 200
        running.thread.join(20)
        assert not running.thread.is_alive()
        with pytest.raises(httpx2.ConnectError):
            _post(running, seed=3)


def test_shutdown_stops_what_does_not_finish_in_time(stepped: SteppedPainter) -> None:
    with running_server(stepped, drain_timeout_s=0) as running, ThreadPoolExecutor(1) as pool:
        stepped.stop_before_each_step()
        working = _occupy(pool, running, stepped)
        stepped.allow(2)
        until(lambda: stepped.steps_done == 2)
        running.server.should_exit = True
        until(lambda: running.counters.failed == 1)
        stepped.run_freely()
        running.thread.join(20)
        assert not running.thread.is_alive()
        assert stepped.steps_done == 2
        answer = working.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert answer.headers["retry-after"]


def _occupy(
    pool: ThreadPoolExecutor, running: RunningServer, stepped: SteppedPainter, **fields: object
) -> Future[httpx2.Response]:
    """Start a request and return when the device works on it."""
    future = pool.submit(_post, running, seed=1, **fields)
    until(lambda: stepped.passes_begun >= 1)
    return future
