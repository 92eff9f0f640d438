import json
from pathlib import Path

from benchmarks import bench_guidance


def test_guidance_at_every_step_is_the_measure_of_the_others(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "performance.json"
    bench_guidance.main(
        output=output, model=str(folder), variant="default", backend="torch", seeds=1
    )
    record = json.loads(output.read_text("utf-8"))
    distances = record["guidance_distance"]
    assert distances["every 1"] == 0
    assert all(value > 0 for name, value in distances.items() if name != "every 1")
    assert set(record["guidance_s"]) == set(distances)
