"""What happens under load, when callers leave, and when the server goes."""

import json
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import httpx2
import openai
import pytest
from openai import OpenAI

from app.worker import cost_of
from core.errors import DeviceMemoryError, NumericsError
from tests.app.conftest import RunningServer, SteppedGenerator, running_server, until

BODY = {"prompt": "a red apple", "steps": 10, "seed": 1}


def _post(running: RunningServer, **fields: object) -> httpx2.Response:
    return httpx2.post(f"{running.base_url}/images/generations", json=BODY | fields, timeout=30)


def _send_and_keep_open(running: RunningServer, **fields: object) -> socket.socket:
    body = json.dumps(BODY | fields).encode()
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.sendall(
        b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    return connection


def test_a_caller_who_hangs_up_stops_the_work_before_its_next_step(
    stepped: SteppedGenerator,
) -> None:
    with running_server(stepped) as running:
        stepped.finished.clear()
        stepped.stop_before_each_step()
        connection = _send_and_keep_open(running)
        stepped.allow(3)
        until(lambda: stepped.steps_done == 3)
        connection.close()
        until(stepped.is_cancelled)
        stepped.run_freely()
        assert _post(running, seed=2).status_code == 200
        assert stepped.steps_done == 3 + 10
        assert [specs[0].seed for specs in stepped.finished] == [2]


def test_a_caller_who_hangs_up_while_waiting_frees_the_place(stepped: SteppedGenerator) -> None:
    with running_server(stepped, queue_capacity=1) as running, ThreadPoolExecutor(2) as pool:
        stepped.stop_before_each_step()
        working = _occupy(pool, running, stepped)
        connection = _send_and_keep_open(running)
        until(lambda: running.service.worker.num_waiting == 1)
        connection.close()
        until(lambda: running.service.worker.num_waiting == 0)
        next_one = pool.submit(_post, running, seed=9)
        until(lambda: running.service.worker.num_waiting == 1)
        stepped.run_freely()
        assert working.result().status_code == 200
        assert next_one.result().status_code == 200


def test_the_real_model_stops_when_its_caller_hangs_up(server: RunningServer) -> None:
    worker = server.service.worker
    _post(server, n=10, steps=1)
    connection = _send_and_keep_open(server, n=10, steps=100)
    until(lambda: (worker.backlog_s() or 0) > 0)
    connection.close()
    started = time.perf_counter()
    until(lambda: worker.backlog_s() == 0)
    stopped_after_s = time.perf_counter() - started
    started = time.perf_counter()
    _post(server, n=10, steps=50)
    assert stopped_after_s < (time.perf_counter() - started) / 2


def test_a_full_queue_answers_429_with_the_time_its_work_will_take(
    stepped: SteppedGenerator,
) -> None:
    with running_server(stepped, queue_capacity=2) as running, ThreadPoolExecutor(3) as pool:
        worker = running.service.worker
        stepped.stop_before_each_step()
        accepted = [_occupy(pool, running, stepped)]
        accepted += [pool.submit(_post, running, seed=k) for k in (2, 3)]
        until(lambda: worker.num_waiting == 2)
        stepped.allow(5)
        until(lambda: stepped.steps_done == 5)
        # three requests of ten steps, five steps of them done, at a rate of two steps a second
        worker._rate = _cost_of_one(stepped) * 2 / 10
        refused = _post(running)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert float(refused.headers["retry-after"]) == pytest.approx(25 / 2, abs=0.51)
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
    stepped: SteppedGenerator,
) -> None:
    with running_server(stepped, queue_capacity=1) as running, ThreadPoolExecutor(3) as pool:
        stepped.stop_before_each_step()
        _occupy(pool, running, stepped)
        pool.submit(_post, running, seed=2)
        until(lambda: running.service.worker.num_waiting == 1)
        threading.Timer(0.3, stepped.run_freely).start()
        with OpenAI(base_url=running.base_url, api_key="none", max_retries=2) as client:
            assert client.images.generate(prompt="a red apple").data


def test_requests_are_served_in_the_order_they_came(stepped: SteppedGenerator) -> None:
    with running_server(stepped) as running, ThreadPoolExecutor(5) as pool:
        stepped.finished.clear()
        stepped.stop_before_each_step()
        futures = [_occupy(pool, running, stepped)]
        for seed in (2, 3, 4, 5):
            futures.append(pool.submit(_post, running, seed=seed))
            until(partial(_waits, running, len(futures) - 1))
        stepped.run_freely()
        assert all(future.result().status_code == 200 for future in futures)
        assert [specs[0].seed for specs in stepped.finished] == [1, 2, 3, 4, 5]


def test_the_server_answers_others_while_it_paints(stepped: SteppedGenerator) -> None:
    with running_server(stepped) as running, ThreadPoolExecutor(1) as pool:
        stepped.stop_before_each_step()
        working = _occupy(pool, running, stepped)
        for path in ("livez", "readyz", "v1/models"):
            started = time.perf_counter()
            assert httpx2.get(f"http://127.0.0.1:{running.port}/{path}").status_code == 200
            assert time.perf_counter() - started < 2
        stepped.run_freely()
        assert working.result().status_code == 200


def test_ready_turns_green_only_after_a_picture_went_through(stepped: SteppedGenerator) -> None:
    stepped.stop_before_each_step()
    with running_server(stepped, is_warm=False) as running:
        url = f"http://127.0.0.1:{running.port}"
        until(lambda: running.service.worker.backlog_s() is None)
        assert httpx2.get(f"{url}/livez").json() == {"status": "alive"}
        cold = httpx2.get(f"{url}/readyz")
        assert cold.status_code == 503
        assert cold.json()["error"]["code"] == "not_ready"
        assert cold.headers["retry-after"]
        assert not stepped.finished
        stepped.run_freely()
        until(lambda: running.service.readiness.is_ready)
        assert httpx2.get(f"{url}/readyz").json() == {"status": "ready"}
        assert len(stepped.finished) == 1


def test_a_request_during_the_warm_up_waits_for_its_end(stepped: SteppedGenerator) -> None:
    stepped.stop_before_each_step()
    with running_server(stepped, is_warm=False) as running, ThreadPoolExecutor(1) as pool:
        early = pool.submit(_post, running, seed=77)
        until(lambda: running.service.worker.num_waiting == 1)
        stepped.run_freely()
        assert early.result().status_code == 200
        assert [specs[0].seed for specs in stepped.finished] == [0, 77]


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
    stepped: SteppedGenerator, failure: Exception, status: int, code: str
) -> None:
    with running_server(stepped) as running:
        stepped.failure = failure
        answer = _post(running)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert answer.headers["x-request-id"]
        assert "secret" not in answer.text
        stepped.failure = None
        assert _post(running).status_code == 200


def test_a_model_that_cannot_paint_never_becomes_ready(stepped: SteppedGenerator) -> None:
    stepped.failure = NumericsError("NaN in the latents.")
    with running_server(stepped, is_warm=False) as running:
        until(lambda: "NaN" in running.service.readiness.reason)
        answer = httpx2.get(f"http://127.0.0.1:{running.port}/readyz")
        assert answer.status_code == 503
        assert "NaN in the latents." in answer.json()["error"]["message"]


def test_shutdown_finishes_what_was_accepted(stepped: SteppedGenerator) -> None:
    with running_server(stepped) as running, ThreadPoolExecutor(2) as pool:
        stepped.stop_before_each_step()
        working = _occupy(pool, running, stepped)
        waiting = pool.submit(_post, running, seed=2)
        until(lambda: running.service.worker.num_waiting == 1)
        running.server.should_exit = True
        until(lambda: not running.server.servers[0].is_serving())
        with pytest.raises(httpx2.ConnectError):
            _post(running, seed=3)
        stepped.run_freely()
        assert working.result().status_code == 200
        assert waiting.result().status_code == 200
        running.thread.join(20)
        assert not running.thread.is_alive()


def test_shutdown_stops_what_does_not_finish_in_time(stepped: SteppedGenerator) -> None:
    with (
        running_server(stepped, drain_timeout_s=0) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        stepped.stop_before_each_step()
        working = _occupy(pool, running, stepped)
        stepped.allow(2)
        until(lambda: stepped.steps_done == 2)
        running.server.should_exit = True
        until(stepped.is_cancelled)
        stepped.run_freely()
        running.thread.join(20)
        assert not running.thread.is_alive()
        assert stepped.steps_done == 2
        answer = working.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert answer.headers["retry-after"]


def test_a_shutdown_during_the_warm_up_is_no_failure(stepped: SteppedGenerator) -> None:
    stepped.stop_before_each_step()
    before = stepped.is_cancelled
    with running_server(stepped, is_warm=False) as running:
        until(lambda: stepped.is_cancelled is not before)
        running.server.should_exit = True
        until(stepped.is_cancelled)
        stepped.run_freely()
        running.thread.join(20)
        assert not running.thread.is_alive()
        assert running.service.readiness.reason == "The server is shutting down."
        assert not stepped.finished


def _waits(running: RunningServer, num_requests: int) -> bool:
    return running.service.worker.num_waiting == num_requests


def _occupy(
    pool: ThreadPoolExecutor, running: RunningServer, stepped: SteppedGenerator
) -> Future[httpx2.Response]:
    """Start a request and return when the device works on it."""
    before = stepped.is_cancelled
    future = pool.submit(_post, running, seed=1)
    until(lambda: stepped.is_cancelled is not before)
    return future


def _cost_of_one(stepped: SteppedGenerator) -> float:
    return cost_of(stepped.finished[0][0]) * 10 / stepped.info.default_steps
