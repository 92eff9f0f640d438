"""Garbage is looked for again as it was before."""

import gc
import sys
from types import ModuleType

import pytest

from core.large_imports import MANY, large_imports


def test_nothing_is_collected_inside_and_all_is_as_before_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="in the midst"), large_imports():
        assert not gc.isenabled()
        raise RuntimeError("in the midst")
    assert gc.isenabled()


def test_who_collects_nothing_goes_on_so() -> None:
    gc.disable()
    try:
        with large_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_large_imports_left_behind_is_never_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = gc.get_freeze_count()
    try:
        with large_imports():
            pass
        assert gc.get_freeze_count() == before
        with large_imports():
            for number in range(MANY):
                monkeypatch.setitem(sys.modules, f"made_up_{number}", ModuleType("made_up"))
        assert gc.get_freeze_count() > before + MANY
    finally:
        gc.unfreeze()
