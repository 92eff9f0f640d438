import asyncio
import json
import logging

import pytest

from core.errors import InputError, UnknownNameError
from llm_prompting.cache import PlanCache
from llm_prompting.draft import example_draft
from llm_prompting.grammar_backend import plan_by_grammar
from llm_prompting.openai_backend import OpenAIBackend
from llm_prompting.plan import PlanLimits, parse_plan
from llm_prompting.planner import Planner

PROMPT = "two red apples left of a sleeping cat, watercolor, no dogs"
GOOD = example_draft().model_dump_json()


def plan_all(server, *requests: dict, cache: PlanCache | None = None, **options: object):
    """Put several requests to one planner in front of one server."""

    async def run():
        backend = OpenAIBackend("m", base_url=server.base_url, timeout_s=5.0, **options)
        planner = Planner([backend], default="openai", cache=cache)
        try:
            plans = [await planner.plan(**({"prompt": PROMPT} | request)) for request in requests]
        finally:
            await backend.close()
        return plans, planner.counts

    return asyncio.run(run())


def test_without_a_model_the_grammar_plans():
    planner = Planner()
    plan = asyncio.run(planner.plan(PROMPT, aspect=1.5))
    assert plan == plan_by_grammar(PROMPT, aspect=1.5)
    assert planner.names == ("grammar",)
    assert planner.counts == {"plans": 1}


def test_a_plan_is_remembered_and_says_so(language_server, reply):
    language_server.script = [reply(content=GOOD)]
    (first, second), counts = plan_all(language_server, {}, {}, cache=PlanCache())
    assert len(language_server.requests) == 1
    assert (first.provenance.cached, second.provenance.cached) == (False, True)
    assert first.objects == second.objects
    assert counts == {"plans": 2, "cached": 1}


@pytest.mark.parametrize("other", [{"prompt": "a cat"}, {"aspect": 1.5}, {"planner": "grammar"}])
def test_another_request_is_not_answered_from_memory(language_server, reply, other):
    language_server.script = [reply(content=GOOD)]
    (_, second), counts = plan_all(language_server, {}, other, cache=PlanCache())
    assert not second.provenance.cached
    assert "cached" not in counts


@pytest.mark.parametrize("other", [{"model": "n"}, {"temperature": 0.9}])
def test_another_model_is_not_answered_from_memory(language_server, reply, other):
    language_server.script = [reply(content=GOOD)]
    cache = PlanCache()

    async def plan(**options: object):
        options = {"model": "m"} | options
        backend = OpenAIBackend(base_url=language_server.base_url, **options)
        try:
            return await Planner([backend], default="openai", cache=cache).plan(PROMPT)
        finally:
            await backend.close()

    asyncio.run(plan())
    assert not asyncio.run(plan(**other)).provenance.cached
    assert asyncio.run(plan()).provenance.cached


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"status": 500, "body": b"{}"}, "server_error"),
        ({"status": 429, "body": b"{}"}, "rate_limited"),
        ({"refusal": "no"}, "refused"),
        ({"content": "no"}, "invalid"),
        ({"hang_up": True}, "connection"),
    ],
)
def test_a_failing_planner_never_fails_the_request(language_server, reply, caplog, options, reason):
    language_server.script = [reply(**options)]
    with caplog.at_level(logging.WARNING):
        (plan,), counts = plan_all(language_server, {})
    assert plan.objects == plan_by_grammar(PROMPT).objects
    assert plan.provenance.planner == "grammar"
    assert plan.provenance.fallback.startswith(f"openai: {reason}: ")
    assert plan.provenance.num_asks >= 1
    assert counts == {"plans": 1, f"fallback.{reason}": 1}
    assert [record.levelname for record in caplog.records if "grammar" in record.message] == [
        "WARNING"
    ]
    assert parse_plan(json.loads(plan.to_json())) == plan


def test_a_fallback_is_not_remembered(language_server, reply):
    language_server.script = [reply(status=500, body=b"{}"), reply(content=GOOD)]
    (first, second), counts = plan_all(language_server, {}, {}, cache=PlanCache())
    assert first.provenance.fallback
    assert (second.provenance.planner, second.provenance.cached) == ("openai", False)
    assert counts == {"plans": 2, "fallback.server_error": 1}


def test_repaired_plans_are_counted(language_server, reply):
    language_server.script = [reply(content=GOOD.replace("80", "-80", 1))]
    (plan,), counts = plan_all(language_server, {})
    assert [fix.kind for fix in plan.provenance.repairs] == ["clamp"]
    assert counts == {"plans": 1, "repaired": 1}


@pytest.mark.parametrize("prompt", ["", "  \n", "x" * 5000, "a \ud800 cat"])
def test_prompts_that_nobody_can_plan_are_refused(prompt):
    with pytest.raises(InputError) as caught:
        asyncio.run(Planner().plan(prompt))
    assert caught.value.param == "prompt"


def test_limits_are_the_callers():
    planner = Planner(limits=PlanLimits(max_objects=2, max_prompt_chars=20))
    assert asyncio.run(planner.plan("three cats")).is_one_region
    with pytest.raises(InputError, match="at most 20"):
        asyncio.run(planner.plan("three cats and two dogs"))


def test_an_unknown_planner_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="Known: grammar") as caught:
        asyncio.run(Planner().plan("a cat", planner="gpt"))
    assert caught.value.param == "planner"
    with pytest.raises(UnknownNameError):
        Planner(default="openai")
