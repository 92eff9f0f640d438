"""Remember plans: a bounded memory that forgets what was used longest ago."""

import threading
from collections import OrderedDict
from typing import NamedTuple

from llm_prompting.plan import ScenePlan


class PlanKey(NamedTuple):
    """Everything that a plan depends on; two requests that differ in any of it differ in plan.

    Attributes:
        prompt: The sentence.
        aspect: Picture width over height.
        planner: Name of the planner.
        model: The language model; empty without one.
        template: Content hash of its instructions; empty without.
        schema_version: Version of the plan's schema.
        temperature: Sampling temperature of the model.
    """

    prompt: str
    aspect: float
    planner: str
    model: str
    template: str
    schema_version: int
    temperature: float


class PlanCache:
    """Plans by key, at most so many; safe to use from several threads.

    Args:
        max_entries: Plans kept; 0 keeps none.
    """

    def __init__(self, max_entries: int = 1024) -> None:
        self._max_entries = max_entries
        self._plans: OrderedDict[PlanKey, ScenePlan] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: PlanKey) -> ScenePlan | None:
        """Return the plan kept under a key, and count it as used now.

        Args:
            key: The key.

        Returns:
            The plan as it was kept, or None.
        """
        with self._lock:
            if key not in self._plans:
                return None
            self._plans.move_to_end(key)
            return self._plans[key]

    def put(self, key: PlanKey, plan: ScenePlan) -> None:
        """Keep a plan, and forget the one that was used longest ago if there are too many.

        Args:
            key: The key.
            plan: The plan.
        """
        with self._lock:
            self._plans[key] = plan
            self._plans.move_to_end(key)
            while len(self._plans) > self._max_entries:
                self._plans.popitem(last=False)

    def __len__(self) -> int:
        return len(self._plans)
