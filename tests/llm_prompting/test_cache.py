from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_prompting.cache import PlanCache, PlanKey
from llm_prompting.plan import ScenePlan

KEY = PlanKey("a cat", 1.0, "openai", "m", "t", 1, 0.0)
PLAN = ScenePlan(prompt="a cat")


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(prompt="a dog"),
        KEY._replace(aspect=1.5),
        KEY._replace(planner="grammar"),
        KEY._replace(model="n"),
        KEY._replace(template="u"),
        KEY._replace(schema_version=2),
        KEY._replace(temperature=0.7),
    ],
)
def test_a_plan_is_found_by_its_whole_key_only(other):
    cache = PlanCache()
    cache.put(KEY, PLAN)
    assert cache.get(KEY) is PLAN
    assert cache.get(other) is None


def test_what_was_used_longest_ago_is_forgotten():
    cache = PlanCache(max_entries=2)
    first, second, third = (KEY._replace(prompt=str(number)) for number in range(3))
    cache.put(first, PLAN)
    cache.put(second, PLAN)
    cache.get(first)
    cache.put(third, PLAN)
    assert cache.get(second) is None
    assert cache.get(first) is PLAN
    assert len(cache) == 2


def test_a_cache_of_nothing_keeps_nothing():
    cache = PlanCache(max_entries=0)
    cache.put(KEY, PLAN)
    assert cache.get(KEY) is None


def test_threads_never_make_it_larger():
    cache = PlanCache(max_entries=8)

    def work(number: int) -> None:
        for step in range(200):
            key = KEY._replace(prompt=str((number * 7 + step) % 20))
            cache.put(key, PLAN)
            cache.get(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(cache) == 8
