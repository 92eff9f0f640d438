import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import bench_setup
from core.errors import ConfigError

MAKEFILE = """run:
\tmkdir -p .venv
\tsleep 0.2
broken:
\t@echo the way out >&2; exit 3
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose set-up takes no time."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "Makefile").write_text(MAKEFILE)
    who = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    for words in (("init",), ("add", "."), (*who, "commit", "-m", "All")):
        subprocess.run(["git", *words], cwd=home, check=True, capture_output=True)
    monkeypatch.setattr(bench_setup, "REPOSITORY", home)
    return home


def test_the_readmes_command_is_timed_twice_in_a_clone(repository: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    bench_setup.main(output=output)
    figures = json.loads(output.read_text())
    assert figures["setup_run_s"] > 0
    assert figures["again_run_s"] > 0
    assert figures["setup_run_mb"] == 0
    assert not (repository / ".venv").exists()


@pytest.mark.usefixtures("repository")
def test_a_command_that_fails_is_named_and_its_words_are_shown(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigError, match="make broken ended with 2"):
        bench_setup.measure(("make", "broken"), "broken")
    assert "the way out" in capfd.readouterr().err
