"""The planner of a running server, and what it does to a request."""

from typing import TypeVar

import structlog

from app.regions import NO_PLANNER, RegionalFields
from app.settings import Settings
from core.errors import ConfigError, InputError
from llm_prompting.cache import PlanCache
from llm_prompting.openai_backend import OpenAIBackend
from llm_prompting.plan import PlanLimits
from llm_prompting.planner import Planner

Body = TypeVar("Body", bound=RegionalFields)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def make_planner(settings: Settings) -> Planner:
    """Build the planner that the settings describe.

    Args:
        settings: The deployment.

    Returns:
        A planner that knows "grammar", and "openai" where a language model is named. Close it at
        the end.

    Raises:
        ConfigError: If requests are to be planned by a language model that none names.
    """
    limits = PlanLimits(max_prompt_chars=settings.max_prompt_chars)
    backends = []
    if settings.llm_model:
        key = settings.llm_key.get_secret_value() if settings.llm_key else "none"
        backends.append(
            OpenAIBackend(
                settings.llm_model,
                base_url=settings.llm_url,
                api_key=key,
                timeout_s=settings.llm_timeout_s,
                limits=limits,
            )
        )
    elif settings.planner == "openai":
        raise ConfigError(
            "planner is openai, but no language model is named: set llm_model.", param="llm_model"
        )
    default = "grammar" if settings.planner == NO_PLANNER else settings.planner
    cache = PlanCache(settings.plan_cache_entries)
    return Planner(backends, default=default, cache=cache, limits=limits)


async def planned(
    body: Body, prompt: str, size: str | None, planner: Planner, default: str
) -> Body:
    """Plan a request's prompt, if the request or the server wants it planned.

    Args:
        body: The request.
        prompt: Its prompt.
        size: Its size, as width x height; else square.
        planner: The server's planner.
        default: Planner where the request names none; "none" plans nothing.

    Returns:
        The request with a plan in it; the same one if nothing is to be planned.

    Raises:
        InputError: If the request names a planner beside its own plan or regions. What else is
            wrong with name or prompt is raised as `Planner.plan` says.
    """
    has_places = body.plan is not None or body.regions is not None
    if has_places and body.planner not in {None, NO_PLANNER}:
        raise InputError(
            "planner makes a plan, and this request brings its own: leave one of them out.",
            param="planner",
        )
    name = default if body.planner is None else body.planner
    if has_places or name == NO_PLANNER:
        return body
    plan = await planner.plan(prompt, aspect=aspect_of(size), planner=name)
    return body.model_copy(update={"plan": plan.model_dump(mode="json", exclude_none=True)})


def aspect_of(size: str | None) -> float:
    """Return width over height of a size such as "1024x768"; 1 for what is none.

    Args:
        size: What the request says; whether it is served is checked elsewhere.
    """
    width, _, height = (size or "").partition("x")
    digits = width.isdecimal() and height.isdecimal() and len(width) + len(height) < 12
    return int(width) / int(height) if digits and int(width) and int(height) else 1.0
