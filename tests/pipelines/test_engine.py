"""Advancing together, leaving, and that what goes wrong hits one request."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import (
    DeviceMemoryError,
    FewstrokeError,
    GenerationCancelledError,
    NumericsError,
    ShuttingDownError,
)
from pipelines.engine import TILED, Engine
from pipelines.events import Done, Failed, Painted, Preview, Queued, Started, StepDone
from pipelines.orders import Tick
from pipelines.scheduling import cost_of
from tests.pipelines.counting_painter import SPEC, Bench, CountingPainter, result_seeds, seeds

MEMORY = DeviceMemoryError("The device is full.")


def test_a_request_is_told_everything_once_and_in_order() -> None:
    bench = Bench()
    heard = bench.submit(SPEC, wants_steps=True)
    bench.finish()
    assert heard.kinds == [Queued, Started, *[StepDone] * 4, Painted, Done]
    steps = [event for event in heard.events if isinstance(event, StepDone)]
    assert [(event.num_done, event.num_steps) for event in steps] == [(k, 4) for k in (1, 2, 3, 4)]
    (result,) = heard.last.results
    assert (result.spec, result.revision, result.fallbacks) == (SPEC, "one", ())
    assert set(result.timings_s) == {"encode", "denoise", "decode"}
    assert bench.intake.state().is_idle
    assert not bench.engine.tick()


def test_pictures_of_a_request_come_back_in_the_order_they_were_asked_for() -> None:
    bench = Bench(num_rows=2)
    heard = bench.submit(*[replace(SPEC, seed=k, num_steps=9 - k) for k in range(5)])
    bench.finish()
    assert result_seeds(heard) == [0, 1, 2, 3, 4]


def test_rows_of_several_requests_share_a_pass_at_steps_of_their_own() -> None:
    bench = Bench(num_rows=4)
    first = bench.submit(*seeds(1))
    bench.tick(2)
    second = bench.submit(*seeds(2, num_steps=9))
    bench.finish()
    assert bench.painter.passes[:5] == [
        [(1, 0)],
        [(1, 1)],
        [(1, 2), (2, 0)],
        [(1, 3), (2, 1)],
        [(2, 2)],
    ]
    assert result_seeds(first) == [1]
    assert result_seeds(second) == [2]


def test_what_cannot_share_a_pass_takes_turns() -> None:
    bench = Bench(num_rows=8)
    wide = bench.submit(*seeds(1, width=256))
    native = bench.submit(*seeds(2))
    bench.finish()
    assert all(len(each) == 1 for each in bench.painter.passes)
    assert isinstance(wide.last, Done)
    assert isinstance(native.last, Done)
    turns = [each[0][0] for each in bench.painter.passes]
    # A step of the wide one costs twice as much, so it has every other turn of the native one.
    assert turns.index(2) <= 1
    assert turns[:6].count(2) >= 3


def test_decoding_has_a_limit_of_its_own_and_keeps_nobody_from_stepping() -> None:
    bench = Bench(num_rows=8, num_decoded=2)
    bench.submit(*seeds(1, 2, 3, 4, 5, num_steps=1))
    bench.submit(*seeds(6, num_steps=9))
    bench.finish()
    assert [len(each) for each in bench.painter.decoded] == [2, 2, 1, 1]
    assert len(bench.painter.passes) == 9


@pytest.mark.parametrize(
    ("num_steps", "asked", "after"),
    [(4, 3, [1, 2, 3]), (20, 3, [5, 10, 15]), (2, 3, [1]), (1, 3, []), (8, 0, []), (5, 1, [2])],
)
def test_previews_are_spread_over_the_steps_and_never_the_last(
    num_steps: int, asked: int, after: list[int]
) -> None:
    bench = Bench()
    heard = bench.submit(replace(SPEC, num_steps=num_steps), num_previews=asked)
    bench.finish()
    previews = [event for event in heard.events if isinstance(event, Preview)]
    assert [event.num_done for event in previews] == after
    assert [event.number for event in previews] == list(range(len(after)))
    assert bench.intake.counters.previews == len(after)


@given(st.integers(0, 5), st.integers(1, 6))
@settings(deadline=None, max_examples=25)
def test_a_caller_who_leaves_is_stopped_before_the_next_step(done: int, num_rows: int) -> None:
    bench = Bench(num_rows=num_rows)
    leaver = bench.submit(replace(SPEC, seed=1, num_steps=6))
    stayer = bench.submit(replace(SPEC, seed=2, num_steps=6))
    while sum(seed == 1 for each in bench.painter.passes for seed, _ in each) < done:
        bench.tick()
    assert leaver.job is not None
    bench.intake.cancel(leaver.job)
    bench.intake.cancel(leaver.job)
    assert isinstance(leaver.last, Failed)
    assert isinstance(leaver.last.error, GenerationCancelledError)
    bench.finish()
    assert sum(seed == 1 for each in bench.painter.passes for seed, _ in each) == done
    assert bench.painter.decoded == [[2]]
    assert isinstance(stayer.last, Done)
    assert bench.intake.counters.cancelled == 1


def test_a_caller_who_leaves_during_a_pass_is_dropped_after_it() -> None:
    bench = Bench()
    heard = bench.submit(SPEC)
    assert heard.job is not None
    job = heard.job
    bench.painter.before_pass = lambda _: bench.intake.cancel(job)
    bench.finish()
    assert len(bench.painter.passes) == 1
    counters = bench.intake.counters
    assert (counters.dropped_steps, counters.steps) == (1, 0)


def test_a_caller_who_leaves_during_decoding_is_told_nothing_more() -> None:
    bench = Bench()
    heard = bench.submit(SPEC)
    assert heard.job is not None
    job = heard.job
    bench.painter.before_decode = lambda _, __: bench.intake.cancel(job)
    bench.finish()
    assert heard.kinds == [Queued, Started, Failed]
    assert bench.intake.state().is_idle


def _fails_with(error: Exception, *, more_than: int) -> Callable[[list[int]], None]:
    def fail(together: list[int]) -> None:
        if len(together) > more_than:
            raise error

    return fail


def test_a_pass_that_does_not_fit_is_halved_until_it_does_and_the_budget_shrinks() -> None:
    bench = Bench(num_rows=8)
    bench.painter.before_pass = _fails_with(MEMORY, more_than=3)
    listeners = [bench.submit(*seeds(k)) for k in range(8)]
    bench.finish()
    assert all(isinstance(listener.last, Done) for listener in listeners)
    assert {len(each) for each in bench.painter.passes} == {2}
    # Once for eight and twice for four; afterwards nothing larger than two is tried.
    assert bench.intake.counters.out_of_memory == bench.painter.num_freed == 3


def test_a_picture_that_does_not_fit_even_alone_fails_alone() -> None:
    bench = Bench(num_rows=8)

    def fail(together: list[int]) -> None:
        if 5 in together:
            raise MEMORY

    bench.painter.before_pass = fail
    listeners = {k: bench.submit(*seeds(k)) for k in range(8)}
    bench.finish()
    for k, listener in listeners.items():
        if k == 5:
            assert isinstance(listener.last, Failed)
            assert listener.last.error is MEMORY
        else:
            assert result_seeds(listener) == [k]
    assert bench.intake.counters.failed == 1


@pytest.mark.parametrize("error", [NumericsError("NaN."), RuntimeError("a bug")], ids=type)
@pytest.mark.parametrize("stage", ["begin", "pass", "apply", "preview", "decode"])
def test_whatever_fails_ends_the_request_it_hit_and_no_other(
    stage: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(num_rows=4, num_decoded=4)
    painter = bench.painter

    def fail_for(unlucky: Sequence[int]) -> None:
        if 2 in unlucky:
            raise error

    def wrap(name: str) -> None:
        plain = getattr(painter, name)

        def wrapped(row: Any, *rest: Any) -> Any:
            fail_for([getattr(row, "spec", row).seed])
            return plain(row, *rest)

        monkeypatch.setattr(painter, name, wrapped)

    if stage == "pass":
        painter.before_pass = fail_for
    elif stage == "decode":
        painter.before_decode = lambda together, _: fail_for(together)
    else:
        wrap(stage)
    listeners = {k: bench.submit(*seeds(k), num_previews=1) for k in (1, 2, 3)}
    bench.finish()
    assert listeners[2].last == Failed(error=error)
    assert [result_seeds(listeners[k]) for k in (1, 3)] == [[1], [3]]
    assert bench.intake.state().is_idle


def test_a_decode_that_does_not_fit_is_split_then_tiled_and_says_so() -> None:
    bench = Bench(num_rows=4, num_decoded=4)

    def fail(together: list[int], tiled: bool) -> None:  # noqa: FBT001
        if len(together) > 1 or (together == [2] and not tiled):
            raise MEMORY

    bench.painter.before_decode = fail
    listeners = {k: bench.submit(*seeds(k)) for k in (1, 2, 3, 4)}
    bench.finish()
    told = {k: listener.last.results[0].fallbacks for k, listener in listeners.items()}
    assert told == {1: (), 2: (TILED,), 3: (), 4: ()}


def test_one_failed_picture_ends_its_request_but_not_its_neighbours() -> None:
    bench = Bench(num_rows=2)

    def fail(together: list[int]) -> None:
        if 11 in together:
            raise NumericsError("NaN.")

    bench.painter.before_pass = fail
    several, neighbour = bench.submit(*seeds(10, 11, 12)), bench.submit(*seeds(20))
    bench.finish()
    assert isinstance(several.last, Failed)
    assert several.kinds.count(Failed) == 1
    assert result_seeds(neighbour) == [20]


def test_how_many_rows_are_worth_it_is_asked_once_for_every_model() -> None:
    painter = CountingPainter()
    painter.best_num_rows = 3
    bench = Bench(painter)
    bench.submit(*seeds(1, 2, 3, 4, 5, num_steps=1))
    bench.finish()
    assert [len(each) for each in painter.passes] == [3, 2]


def test_a_bug_of_the_engine_itself_leaves_nobody_waiting() -> None:
    bench = Bench()
    bug, go_on = RuntimeError("a bug"), threading.Event()

    def fail_once(_: Tick) -> None:
        if not go_on.is_set():
            raise bug

    engine = Engine(bench.intake, fail_once)
    hit = bench.submit(SPEC)
    thread = threading.Thread(target=engine.run)
    thread.start()
    assert bench.intake.wait_until_idle(20.0)
    assert hit.last == Failed(error=bug)
    go_on.set()
    later = bench.submit(SPEC)
    assert bench.intake.wait_until_idle(20.0)
    assert isinstance(later.last, Done)
    bench.intake.stop(ShuttingDownError("The test ends."))
    thread.join(20)
    assert not thread.is_alive()


def test_a_model_that_cannot_be_measured_takes_one_picture_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()

    def fail(_: int | None) -> float:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench.painter, "measure_budget", fail)
    heard = bench.submit(*seeds(1, 2, num_steps=1))
    bench.finish()
    assert [len(each) for each in bench.painter.passes] == [1, 1]
    assert isinstance(heard.last, Done)


def test_ticks_say_what_they_did() -> None:
    bench = Bench(num_rows=2)
    bench.submit(*seeds(1, 2, num_steps=2))
    bench.finish()
    assert [tick.num_rows for tick in bench.ticks[:2]] == [2, 2]
    assert sum(tick.num_decoded for tick in bench.ticks) == 2
    total = sum(tick.cost for tick in bench.ticks)
    assert total == sum(map(cost_of, seeds(1, 2, num_steps=2)))


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from([128, 256]), st.booleans(), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 4),
    st.data(),
)
@settings(deadline=None, max_examples=40)
def test_every_request_that_nobody_leaves_gets_its_own_pictures(
    asked: list[tuple[int, int, bool, bool]], num_rows: int, data: st.DataObject
) -> None:
    bench = Bench(num_rows=num_rows, max_waiting=100)
    listeners = []
    for number, (num_steps, width, is_batch, leaves) in enumerate(asked):
        spec = replace(SPEC, seed=number, num_steps=num_steps, width=width)
        listener = bench.submit(spec, lane="batch" if is_batch else "interactive")
        for _ in range(data.draw(st.integers(0, 2))):
            bench.engine.tick()
        if leaves:
            assert listener.job is not None
            bench.intake.cancel(listener.job)
        listeners.append(listener)
    bench.finish()
    for number, listener in enumerate(listeners):
        if isinstance(listener.last, Failed):
            assert isinstance(listener.last.error, FewstrokeError)
            assert asked[number][3]
        else:
            assert result_seeds(listener) == [number]
