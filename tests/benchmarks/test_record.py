import json
from pathlib import Path

from evaluation.record import merge


def test_what_others_measured_stays_with_their_command(tmp_path: Path) -> None:
    output = tmp_path / "results" / "teacher.json"
    merge(output, {"single_object": 0.9}, module="one", arguments=["--output", "a b.json"])
    for seconds in (4.0, 3.0):
        merge(output, {"first_image_s": seconds}, module="two", arguments=[])
    record = json.loads(output.read_text("utf-8"))
    assert (record["single_object"], record["first_image_s"]) == (0.9, 3.0)
    assert record["command"] == "python -m one --output 'a b.json' && python -m two"
    assert all(record[key] for key in ("date", "machine", "commit"))


def test_a_run_on_another_device_leaves_the_others_machine_and_day(tmp_path: Path) -> None:
    output = tmp_path / "performance.json"
    merge(output, {"images_per_s_ours": 1.0}, module="one", arguments=[])
    before = json.loads(output.read_text("utf-8"))
    merge(output, {"images_per_s_ours_cuda": 9.0}, module="one", arguments=[], device="cuda")
    after = json.loads(output.read_text("utf-8"))
    assert {key: after[key] for key in ("date", "machine", "commit")} == {
        key: before[key] for key in ("date", "machine", "commit")
    }
    assert all(after[f"{key}_cuda"] for key in ("date", "machine", "commit"))
