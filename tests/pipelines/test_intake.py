"""What is taken in and what is refused, in which order, and on which weights."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from core.errors import (
    DeadlineError,
    InputError,
    QueueFullError,
    ShuttingDownError,
    UnknownNameError,
)
from pipelines.events import Done, Failed, Queued
from pipelines.intake import UNMEASURED_RETRY_S
from tests.pipelines.counting_painter import SPEC, Bench, CountingPainter, seeds


def test_a_full_queue_refuses_with_the_time_its_work_will_take() -> None:
    bench = Bench(max_waiting=2)
    bench.submit(SPEC)
    bench.submit(SPEC)
    with pytest.raises(QueueFullError) as unmeasured:
        bench.submit(SPEC)
    assert unmeasured.value.retry_after_s == UNMEASURED_RETRY_S

    def take_a_second(_: list[int]) -> None:
        bench.now_s += 1.0

    bench.painter.before_pass = take_a_second
    bench.tick(2)
    # One began, so one more may wait; two steps of four are done, at a second each.
    bench.submit(SPEC)
    with pytest.raises(QueueFullError) as measured:
        bench.submit(SPEC)
    assert measured.value.retry_after_s == pytest.approx(2 + 4 + 4)
    assert bench.intake.state().backlog_s == pytest.approx(10)
    assert bench.intake.counters.refused == 2
    bench.submit(SPEC, lane="batch")  # has a queue of its own
    started = bench.now_s
    bench.finish()
    assert bench.now_s - started == pytest.approx(10 + 4)


def test_what_would_come_too_late_is_refused_at_once() -> None:
    bench = Bench()

    def take_a_second(_: list[int]) -> None:
        bench.now_s += 1.0

    bench.painter.before_pass = take_a_second
    bench.submit(SPEC, deadline_s=0.5)  # nothing was measured yet
    bench.tick()
    with pytest.raises(DeadlineError, match="done in 7"):
        bench.submit(SPEC, deadline_s=6.9)
    assert isinstance(bench.submit(SPEC, deadline_s=7.1).last, Queued)


def test_a_small_request_is_not_refused_for_work_that_does_not_go_before_it() -> None:
    bench = Bench(max_waiting=100)

    def take_a_second(_: list[int]) -> None:
        bench.now_s += 1.0

    bench.painter.before_pass = take_a_second
    bench.submit(SPEC)
    bench.finish()
    for _ in range(10):
        bench.submit(replace(SPEC, num_steps=100))
    small = bench.submit(replace(SPEC, num_steps=2), deadline_s=5.0)
    assert isinstance(small.last, Queued)
    bench.tick(3)
    assert isinstance(small.last, Done)


@pytest.mark.parametrize(("before", "after"), [(100, 1), (1, 100)])
def test_the_time_that_work_will_take_is_right_when_its_kind_changes(
    before: int, after: int
) -> None:
    bench = Bench(max_waiting=4)
    decode = bench.painter.decode

    def take_a_second(_: list[int]) -> None:
        bench.now_s += 1.0

    def take_five(*given: Any, **more: Any) -> Any:
        bench.now_s += 5.0 * len(given[0])
        return decode(*given, **more)

    bench.painter.before_pass, bench.painter.decode = take_a_second, take_five
    bench.submit(replace(SPEC, num_steps=before))
    bench.finish()
    for seed in range(4):
        bench.submit(replace(SPEC, seed=seed, num_steps=after))
    with pytest.raises(QueueFullError) as caught:
        bench.submit(SPEC)
    started_s = bench.now_s
    bench.finish()
    assert caught.value.retry_after_s == pytest.approx(bench.now_s - started_s, rel=0.3)


def test_what_was_not_done_in_time_is_ended() -> None:
    bench = Bench()
    heard = bench.submit(SPEC, deadline_s=10.0)
    bench.tick()
    bench.now_s = 11.0
    bench.finish()
    assert isinstance(heard.last, Failed)
    assert isinstance(heard.last.error, DeadlineError)
    assert len(bench.painter.passes) == 1


def test_urgent_and_small_requests_go_first_and_no_one_waits_for_ever() -> None:
    bench = Bench(max_waiting=1000, max_age_s=30.0)

    def take_time(_: list[int]) -> None:
        bench.now_s += 0.1

    bench.painter.before_pass = take_time
    bench.submit(replace(SPEC, seed=99))
    bench.finish()
    bench.painter.passes.clear()
    long = bench.submit(replace(SPEC, seed=1, num_steps=50))
    bench.tick()
    bench.submit(replace(SPEC, seed=2, num_steps=2))
    bench.submit(replace(SPEC, seed=3, num_steps=2), priority=2)
    bench.tick(4)
    assert [each[0][0] for each in bench.painter.passes] == [1, 3, 3, 2, 2]
    # A stream of small ones that would fill the device for ever cannot keep the long one out.
    for number in range(1000):
        if isinstance(long.last, Done):
            break
        bench.submit(replace(SPEC, seed=1000 + number, num_steps=3))
        bench.tick(3)
    assert isinstance(long.last, Done)
    assert bench.now_s < 2 * 30


def test_old_requests_finish_on_the_old_model_and_new_ones_get_the_new() -> None:
    bench = Bench(num_rows=4)
    old, new = bench.painter, CountingPainter("two")
    before = bench.submit(*seeds(1, 2))
    bench.tick(2)
    waiting = bench.submit(*seeds(3))
    assert bench.intake.swap("default", new) is old
    after = bench.submit(*seeds(4))
    bench.finish()
    for listener, revision in ((before, "one"), (waiting, "one"), (after, "two")):
        assert {result.revision for result in listener.last.results} == {revision}
    assert {seed for each in old.passes for seed, _ in each} == {1, 2, 3}
    assert {seed for each in new.passes for seed, _ in each} == {4}
    assert bench.intake.counters.swaps == 1


def test_variants_stand_beside_each_other_and_are_named() -> None:
    bench, few = Bench(), CountingPainter("few")
    bench.intake.swap("few-step", few)
    chosen, default = bench.submit(SPEC, variant="few-step"), bench.submit(SPEC)
    bench.finish()
    assert chosen.last.results[0].revision == "few"
    assert default.last.results[0].revision == "one"
    with pytest.raises(UnknownNameError, match="few-step"):
        bench.submit(SPEC, variant="many")
    bench.intake.remove("few-step")
    assert list(bench.intake.variants()) == ["default"]
    with pytest.raises(UnknownNameError):
        bench.submit(SPEC, variant="few-step")


def test_a_bad_picture_is_refused_before_anything_is_taken() -> None:
    bench = Bench()
    with pytest.raises(InputError):
        bench.submit(SPEC, replace(SPEC, prompt=""))
    assert bench.intake.state().is_idle


def test_closing_takes_no_more_and_finishes_what_was_taken() -> None:
    bench = Bench()
    taken = bench.submit(SPEC)
    bench.intake.refuse_new()
    with pytest.raises(ShuttingDownError):
        bench.submit(SPEC)
    assert not bench.intake.wait_until_idle(0.0)
    bench.finish()
    assert isinstance(taken.last, Done)
    assert bench.intake.wait_until_idle(0.0)


def test_stopping_ends_everything_and_the_thread() -> None:
    bench = Bench()
    running, waiting = bench.submit(SPEC), bench.submit(SPEC)
    reached, go_on = threading.Event(), threading.Event()

    def hold(_: list[int]) -> None:
        reached.set()
        assert go_on.wait(20)

    bench.painter.before_pass = hold
    thread = threading.Thread(target=bench.engine.run)
    thread.start()
    assert reached.wait(20)
    reason = ShuttingDownError("The server is shutting down.")
    bench.intake.stop(reason)
    go_on.set()
    thread.join(20)
    assert not thread.is_alive()
    assert running.last == waiting.last == Failed(error=reason)
    assert len(bench.painter.passes) == 1
