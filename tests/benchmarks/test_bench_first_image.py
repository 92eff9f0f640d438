import json
from pathlib import Path

from benchmarks.bench_first_image import main


def test_what_a_caller_waits_for_is_measured_and_written_down(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    main(output=output, model=str(folder), num_images=2)
    figures = json.loads(output.read_text("utf-8"))
    assert 0 < figures["image_s"] < figures["first_image_s"]
    assert figures["start_to_ready_s"] < figures["first_image_s"] < 120
    assert 100 < figures["resident_mb"] < 10_000
    assert "benchmarks.bench_first_image" in figures["command"]
