import json
import sys
from pathlib import Path

import pytest

from benchmarks.bench_first_image import merge


def test_what_others_measured_stays_with_their_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results" / "teacher.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--output", "a b.json"])
    merge(output, {"first_image_s": 5.0})
    record = json.loads(output.read_text("utf-8"))
    output.write_text(json.dumps(record | {"single_object": 0.9, "command": "evaluate"}), "utf-8")
    for seconds in (4.0, 3.0):
        merge(output, {"first_image_s": seconds})
    record = json.loads(output.read_text("utf-8"))
    assert (record["single_object"], record["first_image_s"]) == (0.9, 3.0)
    assert record["command"] == (
        "evaluate && python -m benchmarks.bench_first_image --output 'a b.json'"
    )
    assert all(record[key] for key in ("date", "machine", "commit"))
