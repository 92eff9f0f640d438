"""Ten times what the server can do: every answer is a picture or an honest 429."""

import os
import threading
import time

import httpx2
import psutil
import pytest

from tests.app.conftest import SteppedPainter, running_server

SECONDS_PER_PASS = 0.02
CAPACITY = 4
NUM_CLIENTS = 40


class _SlowPainter(SteppedPainter):
    def predict(self, rows: list[object]) -> list[int]:
        time.sleep(SECONDS_PER_PASS)
        return super().predict(rows)


@pytest.mark.slow
def test_ten_times_too_much_is_refused_honestly() -> None:
    seconds = float(os.environ.get("OVERLOAD_S", "6"))
    answers: list[httpx2.Response] = []
    process = psutil.Process(os.getpid())
    with (
        running_server(_SlowPainter(), queue_capacity=CAPACITY) as running,
        httpx2.Client(timeout=60) as client,
    ):
        url = f"{running.base_url}/images/generations"
        give_up_at = time.monotonic() + seconds

        def ask(seed: int) -> None:
            while time.monotonic() < give_up_at:
                answer = client.post(url, json={"prompt": "a red apple", "seed": seed})
                answers.append(answer)
                if answer.status_code == 429:
                    time.sleep(0.2)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 3)
        early = process.memory_info().rss
        backlogs = []
        while time.monotonic() < give_up_at:
            backlogs.append(running.service.host.state().backlog_s or 0.0)
            time.sleep(0.05)
        late = process.memory_info().rss
        for thread in threads:
            thread.join()
        state = running.service.host.state()
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(429) > statuses.count(200)
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "queue_full"
            # whole seconds, at least one: what the protocol's clients understand
            assert 1 <= float(answer.headers["retry-after"]) <= 2 * max(backlogs) + 1
    # the queue and its running request take about as long as the backlog says
    own_s = SECONDS_PER_PASS * 4
    true_s = (CAPACITY + 1) * own_s
    assert true_s / 4 < sorted(backlogs)[len(backlogs) // 2] < 4 * true_s
    assert late - early < 64 * 1024 * 1024
    assert state.is_idle
