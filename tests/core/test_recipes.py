from dataclasses import dataclass
from typing import Literal

import pytest

from core.errors import InputError
from core.recipes import configured


@dataclass(frozen=True, kw_only=True)
class Recipe:
    size: int = 8
    rate: float = 0.5
    start: Literal["zero", "error"] = "zero"
    compiles: bool = False


RECIPES = {"cpu": Recipe(), "gpu": Recipe(size=64)}


def test_settings_are_changed_by_name_and_type() -> None:
    changed = configured(RECIPES, "gpu", ["rate=2", "start=error", "compiles=true"])
    assert changed == Recipe(size=64, rate=2.0, start="error", compiles=True)
    assert RECIPES["gpu"] == Recipe(size=64)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("tpu", "size=1", "cpu, gpu"),
        ("cpu", "sise=1", "Did you mean 'size'"),
        ("cpu", "size=three", "valid integer"),
        ("cpu", "start=one", "'zero' or 'error'"),
        ("cpu", "?", "size=8, rate=0.5, start=zero, compiles=False"),
    ],
)
def test_what_cannot_be_set_is_refused_with_what_can(name: str, change: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        configured(RECIPES, name, [change])
