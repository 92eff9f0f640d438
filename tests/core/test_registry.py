import pytest

from core.errors import ConfigError, UnknownNameError
from core.registry import Registry


@pytest.fixture
def schedulers() -> Registry[int]:
    registry: Registry[int] = Registry("scheduler")
    registry.add("ddim", 1)
    registry.add("dpmpp", 2)
    return registry


def test_entry_comes_back_under_its_name(schedulers):
    assert schedulers.get("dpmpp") == 2
    assert "ddim" in schedulers
    assert "euler" not in schedulers


def test_add_returns_the_entry():
    assert Registry("colour").add("red", "#f00") == "#f00"


def test_names_keep_the_order_of_registration(schedulers):
    schedulers.add("a", 3)
    assert schedulers.names() == tuple(schedulers) == ("ddim", "dpmpp", "a")
    assert len(schedulers) == 3


def test_second_entry_under_a_taken_name_is_refused_and_changes_nothing(schedulers):
    with pytest.raises(ConfigError, match="scheduler 'ddim' is already registered"):
        schedulers.add("ddim", 9)
    assert schedulers.get("ddim") == 1


def test_miss_names_the_field_the_known_names_and_the_nearest(schedulers):
    with pytest.raises(UnknownNameError) as caught:
        schedulers.get("dppmp", param="scheduler")
    assert caught.value.param == "scheduler"
    assert caught.value.message == (
        "Unknown scheduler 'dppmp'. Did you mean 'dpmpp'? Known: ddim, dpmpp."
    )
