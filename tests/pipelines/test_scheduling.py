"""Whose turn it is."""

from collections import Counter
from collections.abc import Callable, Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.scheduling import DeficitRing, FairSchedule, Lane, Rate, Work, cost_of, step_cost_of
from pipelines.spec import GenerationSpec

SHARES: dict[Lane, float] = {"interactive": 0.8, "batch": 0.2}


def paying(budget: float) -> Callable[[Hashable], float]:
    return lambda _: budget


def work(
    key: Hashable = "a",
    *,
    lane: Lane = "interactive",
    cost: float = 1.0,
    steps: int = 10**9,
    at: float = 0.0,
    due: float | None = None,
    weight: float = 1.0,
) -> Work:
    return Work(
        key=key,
        lane=lane,
        step_cost=cost,
        steps_left=steps,
        arrived_s=at,
        due_s=at if due is None else due,
        weight=weight,
    )


def schedule(*works: Work, max_age_s: float = 1e9) -> FairSchedule[Work]:
    made = FairSchedule[Work](SHARES, max_age_s=max_age_s)
    for each in works:
        made.add(each)
    return made


def spent(made: FairSchedule[Work], num_ticks: int, *, budget: float = 0.0) -> Counter[Work]:
    total: Counter[Work] = Counter()
    for _ in range(num_ticks):
        for chosen in made.next(paying(budget), 0.0):
            total[chosen] += chosen.step_cost  # type: ignore[assignment]
    return total


def test_cost_grows_with_pixels_steps_and_guidance() -> None:
    plain = GenerationSpec(prompt="a", num_steps=10, guidance_scale=1.0)
    twice = [
        GenerationSpec(prompt="a", num_steps=20, guidance_scale=1.0),
        GenerationSpec(prompt="a", num_steps=10, guidance_scale=1.0, width=256),
        GenerationSpec(prompt="a", num_steps=10, guidance_scale=4.0),
    ]
    assert [cost_of(spec) for spec in twice] == [2 * cost_of(plain)] * 3
    assert cost_of(plain) == 10 * step_cost_of(plain)


def test_nothing_is_chosen_from_nothing() -> None:
    made = schedule()
    assert made.next(paying(10.0), 0.0) == []
    one = work()
    made.add(one)
    made.remove(one)
    assert made.next(paying(10.0), 0.0) == []


def test_equal_requests_are_served_in_the_order_they_came() -> None:
    works = [work(at=float(k)) for k in range(5)]
    made = schedule(*reversed(works))
    order = []
    for _ in works:
        (first,) = made.next(paying(0.0), 10.0)
        made.remove(first)
        order.append(first)
    assert order == works


def test_a_pass_holds_as_much_of_one_key_as_the_budget_pays() -> None:
    works = [work("a", cost=3.0, at=float(k)) for k in range(5)]
    made = schedule(*works)
    assert made.next(paying(9.5), 0.0) == works[:3]
    assert made.next(paying(100.0), 0.0) == works
    assert made.next(paying(1.0), 0.0) == works[:1]


def test_what_is_due_first_goes_first_within_a_key() -> None:
    long, short = work(at=0.0, due=400.0), work(at=1.0, due=5.0)
    assert schedule(long, short).next(paying(0.0), 1.0) == [short]


@settings(deadline=None, max_examples=30)
@given(
    costs=st.lists(st.floats(0.5, 50), min_size=2, max_size=6),
    num_rows=st.lists(st.integers(1, 4), min_size=6, max_size=6),
)
def test_every_key_gets_the_same_share_whatever_its_steps_cost(
    costs: list[float], num_rows: list[int]
) -> None:
    crowds = [
        [work(key, cost=cost) for _ in range(num_rows[key])] for key, cost in enumerate(costs)
    ]
    made = schedule(*(each for crowd in crowds for each in crowd))
    budget = max(costs)
    total = spent(made, 100 * len(costs), budget=budget)
    shares = [sum(total[each] for each in crowd) for crowd in crowds]
    # The difference is bounded by what a turn costs, not by how long it went on.
    assert max(shares) - min(shares) <= 4 * max(costs)


def test_a_lone_request_of_a_rare_kind_does_not_wait_behind_a_crowd() -> None:
    crowd = [work("common", at=float(k) / 100) for k in range(200)]
    lone = work("rare", at=3.0)
    made = schedule(*crowd, lone)
    firsts = [made.next(paying(0.0), 3.0)[0] for _ in range(6)]
    assert firsts.count(lone) == 3


@pytest.mark.parametrize("cost", [1.0, 7.0])
def test_batch_jobs_keep_their_reserved_share_and_no_more(cost: float) -> None:
    loud, patient = work("a"), work("b", lane="batch", cost=cost)
    total = spent(schedule(loud, patient), 5000)
    assert total[patient] / sum(total.values()) == pytest.approx(0.2, abs=0.01)


def test_a_lane_that_is_alone_gets_everything() -> None:
    patient = work(lane="batch")
    assert spent(schedule(patient), 10)[patient] == 10


def test_a_lane_without_a_share_is_slow_but_never_starves() -> None:
    made = FairSchedule[Work]({"interactive": 1.0, "batch": 0.0}, max_age_s=1e9)
    loud, patient = work("a"), work("b", lane="batch")
    made.add(patient)
    assert made.next(paying(0.0), 0.0) == [patient]
    made.add(loud)
    total = spent(made, 1000)
    assert 5 <= total[patient] <= 20


def test_room_in_a_pass_is_filled_from_the_other_lane() -> None:
    loud, patient = work("a"), work("a", lane="batch")
    assert schedule(patient, loud).next(paying(2.0), 0.0) in ([loud, patient], [patient, loud])


def test_weight_is_a_multiple_of_the_share() -> None:
    heavy, light = work("a", weight=4.0), work("b")
    total = spent(schedule(heavy, light), 1000)
    assert total[heavy] / total[light] == pytest.approx(4, rel=0.02)


def test_whoever_is_too_old_goes_first_in_its_lane() -> None:
    old = work("rare", at=0.0, due=1000.0)
    urgent = [work("common", at=50.0, due=50.0, weight=8.0) for _ in range(3)]
    made = schedule(old, *urgent, max_age_s=60.0)
    assert [made.next(paying(0.0), 61.0) for _ in range(3)] == [[old]] * 3


def test_whoever_is_too_old_goes_first_in_its_queue_too() -> None:
    old = work(at=0.0, due=1000.0)
    made = schedule(old, *(work(at=50.0, due=60.0) for _ in range(3)), max_age_s=60.0)
    assert made.next(paying(0.0), 61.0) == [old]
    assert made.next(paying(2.0), 61.0)[0] is old


WAITING = st.tuples(
    st.sampled_from("abc"), st.sampled_from(["interactive", "batch"]), st.integers(1, 30)
)


@settings(deadline=None, max_examples=200)
@given(st.lists(WAITING, max_size=12), st.sampled_from("abc"), st.integers(1, 30))
def test_what_is_said_to_be_done_first_is_what_is_done_first(
    waiting: list[tuple[str, Lane, int]], key: str, steps: int
) -> None:
    made = schedule(*(work(k, lane=lane, steps=n, due=float(n)) for k, lane, n in waiting))
    said = made.cost_until_done("interactive", key, cost=float(steps), due_s=float(steps))
    assert said <= steps + sum(n for _, _, n in waiting)
    new = work(key, steps=steps, due=float(steps))
    made.add(new)
    cost = 0.0
    while new.steps_left:
        for chosen in made.next(paying(0.0), 0.0):
            cost += chosen.step_cost
            chosen.steps_left -= 1
            if not chosen.steps_left:
                made.remove(chosen)
    # turns are whole steps, and other lanes come in rounds of several
    assert cost == pytest.approx(said, abs=8)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 8)), min_size=1, max_size=20))
def test_everything_is_finished_in_as_many_ticks_as_there_are_steps(
    asked: list[tuple[str, int]],
) -> None:
    made = schedule()
    for key, steps in asked:
        made.add(work(key, steps=steps))
    num_ticks = 0
    while chosen := made.next(paying(0.0), 0.0):
        num_ticks += 1
        chosen[0].steps_left -= 1
        if not chosen[0].steps_left:
            made.remove(chosen[0])
    assert num_ticks == sum(steps for _, steps in asked)


def test_a_ring_forgets_who_left() -> None:
    ring = DeficitRing[str]()
    ring.weigh("a", 1.0)
    ring.charge(ring.turn(), 100.0)
    ring.weigh("b", 1.0)
    ring.discard("a")
    assert [ring.turn() for _ in range(3)] == ["b"] * 3
    ring.discard("b")
    assert not ring


def test_a_rate_is_work_over_time_and_follows_changes() -> None:
    rate = Rate(half_life_s=10.0)
    assert rate.seconds(5.0) is None
    for _ in range(100):
        rate.measure(2.0, 1.0)
    assert rate.seconds(10.0) == pytest.approx(5)
    for _ in range(100):
        rate.measure(4.0, 1.0)
    assert rate.seconds(10.0) == pytest.approx(2.5, rel=0.01)
    assert rate.cost(2.5) == pytest.approx(10.0, rel=0.01)
    assert Rate().cost(1.0) == 0
