"""Whose turn it is: fair queues by kind of work, by cost, age and priority. No torch here.

Work that one forward pass can do together has one key. Each key has a queue in each lane:

    lane     interactive | batch; each has its share of the device while both have work
    key      deficit round robin, so that no kind of work waits behind another kind
    due      within a queue the earliest due date first: arrival + STRETCH x own time / weight;
             small and urgent work is due soon, and what waits long enough is due before all new

Time is shared a step at a time, so whatever joins waits for one step at most to be considered.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Literal, TypeVar

from pipelines.spec import GenerationSpec

Lane = Literal["interactive", "batch"]
AnyWork = TypeVar("AnyWork", bound="Work")
Name = TypeVar("Name", bound=Hashable)

MIN_SHARE = 0.01
"""What a lane gets even if its share is set to nothing: nobody waits for ever."""

STRETCH = 4.0
"""A request is due when this many times its own computing time has passed."""

_arrivals = count()


@dataclass(kw_only=True, slots=True, eq=False)
class Work:
    """One picture in the queue, waiting or begun.

    Attributes:
        key: What a forward pass must have in common.
        lane: Whose share of the device pays for it.
        step_cost: What one step costs, in pixels times forward passes.
        steps_left: Steps that are still to be done.
        arrived_s: When it came, on the engine's clock.
        due_s: When it should be done, on the engine's clock.
        end_cost: What is still to be done after the steps, as steps would cost it.
        weight: How much of its lane its kind of work gets against others, above 0.
        place: Breaks ties in the order of arrival.
    """

    key: Hashable
    lane: Lane
    step_cost: float
    steps_left: int
    arrived_s: float
    due_s: float
    end_cost: float = 0.0
    weight: float = 1.0
    place: int = field(default_factory=lambda: next(_arrivals))

    @property
    def cost_left(self) -> float:
        """What the rest costs, in pixels times forward passes."""
        return self.step_cost * self.steps_left + self.end_cost


class FairSchedule(Generic[AnyWork]):
    """Chooses, for every step, the work that advances.

    Args:
        shares: How much of the device each lane gets while all of them have work.
        max_age_s: Whoever is older than this goes first in its lane, the oldest of all.
    """

    def __init__(self, shares: Mapping[Lane, float], *, max_age_s: float) -> None:
        self._shares = {lane: max(MIN_SHARE, share) for lane, share in shares.items()}
        self._max_age_s = max_age_s
        self._lanes: DeficitRing[Lane] = DeficitRing()
        self._keys: dict[Lane, DeficitRing[Hashable]] = {lane: DeficitRing() for lane in shares}
        self._queues: dict[tuple[Lane, Hashable], list[tuple[float, int, AnyWork]]] = {}

    def next(self, budget: Callable[[Hashable], float], now_s: float) -> list[AnyWork]:
        """Return the work that advances by one step now, and charge for it.

        Args:
            budget: What one forward pass for a key may cost, in pixels times passes; the first
                piece of work is chosen whatever it costs.
            now_s: The time on the engine's clock.

        Returns:
            Work of one key; empty if there is none.
        """
        if not self._queues:
            return []
        lane = self._lanes.turn()
        oldest = self._too_old(lane, now_s)
        key = self._keys[lane].turn() if oldest is None else oldest.key
        # Room that one lane leaves in the pass is filled from the other.
        lanes = [lane, *(other for other in self._shares if other != lane)]
        queued = [work for one in lanes for _, _, work in self._queues.get((one, key), ())]
        if oldest is not None:
            queued = [oldest, *(work for work in queued if work is not oldest)]
        num_rows = max(1, int(budget(key) // queued[0].step_cost))
        chosen = queued[:num_rows]
        for work in chosen:
            self._lanes.charge(work.lane, work.step_cost)
            self._keys[work.lane].charge(key, work.step_cost)
        return chosen

    def add(self, work: AnyWork) -> None:
        """Put work into its queue.

        Args:
            work: What has come.
        """
        queue = self._queues.setdefault((work.lane, work.key), [])
        insort(queue, (work.due_s, work.place, work))
        self._weigh(work.lane, work.key)

    def remove(self, work: AnyWork) -> None:
        """Take work out of its queue, done or not.

        Args:
            work: What leaves.
        """
        queue = self._queues[work.lane, work.key]
        queue.remove((work.due_s, work.place, work))
        self._weigh(work.lane, work.key)

    def cost_until_done(
        self, lane: Lane, key: Hashable, *, cost: float, due_s: float, weight: float = 1.0
    ) -> float:
        """Return what the device does until work that comes now is done, if nothing follows it.

        Its own queue goes first as far as it is due earlier. While that lasts, each other key, and
        then each other lane, takes its part, but no more than it has.

        Args:
            lane: Its lane.
            key: What a forward pass must have in common.
            cost: All of it.
            due_s: When it should be done, on the engine's clock.
            weight: As `Work` has it.
        """
        queue = self._queues.get((lane, key), ())
        mine = cost + sum(work.cost_left for due, _, work in queue if due <= due_s)
        weights = {key: weight} | {
            other: max(work.weight for _, _, work in works)
            for (its_lane, other), works in self._queues.items()
            if its_lane == lane
        }
        lane_cost = mine + sum(
            min(self._cost_left(lane, other), mine * its / max(weight, weights[key]))
            for other, its in weights.items()
            if other != key
        )
        return lane_cost + sum(
            min(self._cost_left(other), lane_cost * share / self._shares[lane])
            for other, share in self._shares.items()
            if other != lane
        )

    def _cost_left(self, lane: Lane, key: Hashable | None = None) -> float:
        costs = (
            work.cost_left
            for (its_lane, its_key), works in self._queues.items()
            if its_lane == lane and key in {None, its_key}
            for _, _, work in works
        )
        return sum(costs, 0.0)

    def _weigh(self, lane: Lane, key: Hashable) -> None:
        queue = self._queues[lane, key]
        if queue:
            self._keys[lane].weigh(key, max(work.weight for _, _, work in queue))
            self._lanes.weigh(lane, self._shares[lane])
            return
        del self._queues[lane, key]
        self._keys[lane].discard(key)
        if not self._keys[lane]:
            self._lanes.discard(lane)

    def _too_old(self, lane: Lane, now_s: float) -> AnyWork | None:
        works = (
            work
            for (its_lane, _), queue in self._queues.items()
            if its_lane == lane
            for _, _, work in queue
        )
        oldest = min(works, key=lambda work: work.place)
        return oldest if now_s - oldest.arrived_s > self._max_age_s else None


class DeficitRing(Generic[Name]):
    """Deficit round robin: everyone in turn, each by its weight in cost, not in number of turns.

    Who is served may overdraw its account by one turn; the next rounds pay it back.

    Source: Shreedhar and Varghese 1995, "Efficient fair queueing using deficit round robin".
        Differs: the cost is charged after the choice, so it need not be known before.
    """

    def __init__(self) -> None:
        self._ring: deque[Name] = deque()
        self._weights: dict[Name, float] = {}
        self._accounts: dict[Name, float] = {}
        self._quantum = 1.0

    def __bool__(self) -> bool:
        """Whether anyone is in the ring."""
        return bool(self._ring)

    def weigh(self, name: Name, weight: float) -> None:
        """Let someone in at the end of the round, or change its weight.

        Args:
            name: Who.
            weight: Its part, above 0, against the others'.
        """
        if name not in self._weights:
            self._ring.append(name)
            self._accounts[name] = 0.0
        self._weights[name] = weight

    def discard(self, name: Name) -> None:
        """Let someone out; what it had saved or owed is forgotten.

        Args:
            name: Who.
        """
        self._ring.remove(name)
        del self._weights[name], self._accounts[name]

    def turn(self) -> Name:
        """Return whose turn it is; the ring must not be empty."""
        while self._accounts[self._ring[0]] <= 0:
            name = self._ring[0]
            self._accounts[name] += self._quantum * self._weights[name]
            self._ring.rotate(-1)
        return self._ring[0]

    def charge(self, name: Name, cost: float) -> None:
        """Book what someone was given.

        Args:
            name: Who.
            cost: How much, above 0.
        """
        self._quantum = max(self._quantum, cost)
        # Room left by another is no debt that would keep its user out for long afterwards.
        floor = -self._quantum * self._weights[name]
        self._accounts[name] = max(self._accounts[name] - cost, min(floor, -cost))


class Rate:
    """How much of one kind of work is done in a second, over the last minute of it or so."""

    def __init__(self, half_life_s: float = 20.0) -> None:
        self._half_life_s = half_life_s
        self._cost = 0.0
        self._seconds = 0.0

    def measure(self, cost: float, seconds: float) -> None:
        """Note what was done.

        Args:
            cost: How much, in pixels, times forward passes for steps.
            seconds: How long it took.
        """
        kept = 0.5 ** (seconds / self._half_life_s)
        self._cost = kept * self._cost + cost
        self._seconds = kept * self._seconds + seconds

    def seconds(self, cost: float) -> float | None:
        """Return how long work takes, in seconds; None before anything was measured.

        Args:
            cost: How much it is, as `measure` has it.
        """
        return cost * self._seconds / self._cost if self._cost else None

    def cost(self, seconds: float) -> float:
        """Return what could be done in a time; 0 before anything was measured.

        Args:
            seconds: The time.
        """
        return seconds * self._cost / self._seconds if self._seconds else 0.0


def cost_of(spec: GenerationSpec) -> float:
    """Return what a picture costs, in pixels times forward passes.

    Args:
        spec: The picture.
    """
    return step_cost_of(spec) * spec.num_steps


def step_cost_of(spec: GenerationSpec) -> float:
    """Return what one step of a picture costs, in pixels times forward passes.

    Args:
        spec: The picture; guidance doubles its forward passes.
    """
    return float(spec.width * spec.height * (1 if spec.guidance_scale == 1 else 2))
