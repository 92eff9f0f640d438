"""Both ways to attend are timed at every shape."""

import pytest

from benchmarks import bench_attention


def test_every_shape_is_timed_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_attention, "SHAPES", {"small": (1, 8, 4, 4)})
    found = bench_attention.measure(repeats=1)
    assert set(found) == {
        f"attention_ms_{way}_{name}"
        for way in ("torch", "blocks")
        for name in ("bfloat16", "float32")
    }
    assert all(each["small"] > 0 for each in found.values())
