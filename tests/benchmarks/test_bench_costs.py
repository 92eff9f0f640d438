"""Cost curves are counted and drawn from what was measured."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import bench_costs, roofline
from benchmarks.bench_costs import regions, step_seconds
from benchmarks.roofline import step_work
from pipelines.text_to_image import TextToImage


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "PRODUCT", 64)
    few = {name: values[:2] for name, values in bench_costs.POINTS.items()} | {"steps": (2, 3)}
    monkeypatch.setattr(bench_costs, "POINTS", few)


@pytest.mark.usefixtures("short")
def test_curves_and_peaks_are_measured_and_drawn(folder: Path, tmp_path: Path) -> None:
    output, picture = tmp_path / "performance.json", tmp_path / "costs.png"
    bench_costs.main(
        output=output,
        model=str(folder),
        variants="default",
        backend="torch",
        repeats=1,
        picture=picture,
    )
    record = json.loads(output.read_text("utf-8"))
    assert list(record["cost_s_by_tokens"]) == ["16", "64"]
    assert list(record["cost_s_by_regions"]) == ["0", "1"]
    assert all(seconds > 0 for seconds in record["cost_s_by_company"].values())
    assert 0 < record["cost_gflop_by_tokens"]["16"] < record["cost_gflop_by_tokens"]["64"]
    assert min(record[f"peak_gflop_s_{kind}"] for kind in ("float32", "bfloat16", "int8")) > 0
    with Image.open(picture) as drawn:
        assert drawn.size == (1400, 700)


def test_one_more_step_costs_the_difference() -> None:
    assert step_seconds({"1": 0.5, "2": 0.6, "11": 1.5}) == pytest.approx(0.1)


def test_work_grows_with_tokens_and_regions_share_the_picture(folder: Path) -> None:
    model = TextToImage.load(folder, device="cpu")
    assert 0 < step_work(model, 16) < step_work(model, 32)
    boxes = [region.box for region in regions(4)]
    assert boxes[0] == (0.0, 0.0, 0.25, 1.0)
    assert boxes[-1] == (0.75, 0.0, 1.0, 1.0)


def test_memory_is_measured_in_a_process_of_its_own(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bench_costs, "POINTS", {"steps": (2,)})
        found = bench_costs.memory_curves(str(folder), "default", "torch")
    assert list(found) == ["cost_mb_by_steps"]
    assert found["cost_mb_by_steps"]["2"] > 100
