import json
from pathlib import Path

from benchmarks import bench_step_cache


def test_pictures_without_a_cache_are_the_measure_of_the_others(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "performance.json"
    bench_step_cache.main(output=output, model=str(folder), variant="default", seeds=1)
    record = json.loads(output.read_text("utf-8"))
    assert record["cache_distance"]["no cache"] == 0
    assert set(record["cache_s"]) == set(record["cache_distance"])
    assert set(record["cache_skipped"]) <= set(record["cache_s"])
    shares = list(record["cache_skipped"].values())
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] < 1
