"""From settings to a planner."""

from app.schemas.regions import NO_PLANNER
from app.settings import Settings
from core.errors import ConfigError
from llm_prompting.cache import PlanCache
from llm_prompting.plan import PlanLimits
from llm_prompting.planner import Planner


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
        # half a second of the server's start, for those who have a language model
        from llm_prompting.openai_backend import OpenAIBackend

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
            "planner is openai, but no language model is named: set FEWSTROKE_LLM_MODEL "
            "(fewstroke plan: --llm-model).",
            param="llm_model",
        )
    default = "grammar" if settings.planner == NO_PLANNER else settings.planner
    cache = PlanCache(settings.plan_cache_entries)
    return Planner(backends, default=default, cache=cache, limits=limits)


def aspect_of(size: str | None) -> float:
    """Return width over height of a size such as "1024x768"; 1 for what is none.

    Args:
        size: What the request says; whether it is served is checked elsewhere.
    """
    width, _, height = (size or "").partition("x")
    digits = width.isdecimal() and height.isdecimal() and len(width) + len(height) < 12
    return int(width) / int(height) if digits and int(width) and int(height) else 1.0
