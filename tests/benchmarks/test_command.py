"""A benchmark says in one line what is wrong with its options."""

import sys
from pathlib import Path

import pytest

from benchmarks import bench_backends
from benchmarks.command import run_command


def test_a_wrong_option_ends_in_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "performance.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--output", str(output), "--xl-who", "nobody"])
    with pytest.raises(SystemExit) as ended:
        run_command(bench_backends.main)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: Unknown runner 'nobody'. Known: ")
    assert said.count("\n") == 1
    assert not output.exists()
