"""From a prompt to a plan: look it up, ask the planner, fall back to the grammar and say so."""

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from core.errors import FewstrokeError, InputError
from core.registry import Registry
from llm_prompting.cache import PlanCache, PlanKey
from llm_prompting.grammar_backend import GrammarBackend, plan_by_grammar
from llm_prompting.plan import SCHEMA_VERSION, PlanLimits, ScenePlan, is_unicode

_log = logging.getLogger(__name__)


class Planner:
    """All planners behind one door.

    Args:
        backends: Planners besides the grammar, which is always there.
        default: Name of the planner that serves requests that name none.
        cache: Where plans are remembered; None remembers nothing.
        limits: How large prompts and plans may be.
    """

    def __init__(
        self,
        backends: "Iterable[Backend]" = (),
        *,
        default: str = "grammar",
        cache: PlanCache | None = None,
        limits: PlanLimits | None = None,
    ) -> None:
        self._limits = limits or PlanLimits()
        self._backends: Registry[Backend] = Registry("planner")
        for backend in (GrammarBackend(self._limits), *backends):
            self._backends.add(backend.name, backend)
        self._backends.get(default, param="planner")
        self._default = default
        self._cache = cache
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that a request may ask for."""
        return self._backends.names()

    @property
    def counts(self) -> dict[str, int]:
        """Return what happened so far: "plans", "cached", "repaired", "fallback.<reason>"."""
        with self._lock:
            return dict(self._counts)

    async def plan(
        self, prompt: str, *, aspect: float = 1.0, planner: str | None = None
    ) -> ScenePlan:
        """Plan a prompt.

        A planner that fails never fails the request: the grammar plans instead, and the plan's
        provenance says why. Such a plan is not remembered, so the next request asks again.

        Args:
            prompt: The sentence.
            aspect: Picture width over height, above 0.
            planner: Which planner to ask; None takes the default. An unknown name is refused
                with the list of known ones.

        Returns:
            The plan.

        Raises:
            InputError: If the prompt is empty or too long.
        """
        if not prompt.strip():
            raise InputError("prompt is empty: say what to paint.", param="prompt")
        most = self._limits.max_prompt_chars
        if len(prompt) > most:
            raise InputError(
                f"prompt has {len(prompt)} characters: at most {most}.", param="prompt"
            )
        if not is_unicode(prompt):
            raise InputError(
                "prompt holds half of a surrogate pair: send valid Unicode.", param="prompt"
            )
        backend = self._backends.get(planner or self._default, param="planner")
        key = PlanKey(
            prompt, round(aspect, 4), backend.name, backend.model, backend.template,
            SCHEMA_VERSION, backend.temperature,
        )  # fmt: skip
        known = self._cache.get(key) if self._cache is not None else None
        if known is not None:
            self._count("plans", "cached")
            provenance = known.provenance.model_copy(update={"cached": True})
            return known.model_copy(update={"provenance": provenance})
        try:
            plan = await backend.plan(prompt, aspect=aspect)
        except PlannerError as error:
            return self._fall_back(prompt, aspect, backend.name, error)
        self._count("plans", *(["repaired"] if plan.provenance.repairs else []))
        if self._cache is not None:
            self._cache.put(key, plan)
        return plan

    async def close(self) -> None:
        """Close what the planners hold open."""
        for name in self._backends.names():
            await self._backends.get(name).close()

    def _fall_back(self, prompt: str, aspect: float, name: str, error: "PlannerError") -> ScenePlan:
        self._count("plans", f"fallback.{error.reason}")
        _log.warning("planner %s failed (%s), grammar plans instead: %s", name, error.reason, error)
        plan = plan_by_grammar(prompt, aspect=aspect, limits=self._limits)
        reason = f"{name}: {error.reason}: {error.message}"[:300]
        provenance = plan.provenance.model_copy(
            update={"fallback": reason, "num_asks": error.num_asks}
        )
        return plan.model_copy(update={"provenance": provenance})

    def _count(self, *names: str) -> None:
        with self._lock:
            self._counts.update(names)


class Backend(Protocol):
    """One way to make plans. The attributes are part of the cache key."""

    @property
    def name(self) -> str:
        """Return the name that requests choose it by."""

    @property
    def model(self) -> str:
        """Return the language model; empty without one."""

    @property
    def template(self) -> str:
        """Return the content hash of its instructions; empty without."""

    @property
    def temperature(self) -> float:
        """Return the sampling temperature."""

    async def plan(self, prompt: str, *, aspect: float = 1.0) -> ScenePlan:
        """Make a plan.

        Args:
            prompt: The sentence.
            aspect: Picture width over height.

        Returns:
            A valid plan, repaired if need be.

        Raises:
            PlannerError: If no plan comes in time.
        """

    async def close(self) -> None:
        """Close what it holds open."""


class PlannerError(FewstrokeError):
    """A planner that made no plan; `Planner` answers it with the grammar's.

    Args:
        message: What happened.
        reason: One of "timeout", "connection", "rate_limited", "server_error", "rejected",
            "refused", "invalid".
        num_asks: How often the model was asked before giving up.
    """

    code = "planner_failed"
    retryable = True

    def __init__(self, message: str, *, reason: str, num_asks: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.num_asks = num_asks
