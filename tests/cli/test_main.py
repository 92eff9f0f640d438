import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.main import build_app
from tests.cli.conftest import Run

COMMANDS = ["serve", "generate", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples(command: str) -> None:
    shown = CliRunner().invoke(build_app(), [command, "--help"])
    assert shown.exit_code == 0
    assert "Examples" in shown.output
    assert f"fewstroke {command}" in shown.output


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from cli.main import build_app; build_app();"
        "print({'torch', 'numpy', 'diffusers', 'fastapi', 'openai'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_version_is_told(fewstroke: Run) -> None:
    ended = fewstroke("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("fewstroke 0.")


def test_a_failure_is_one_line_and_status_two(fewstroke: Run) -> None:
    ended = fewstroke("generate", "a red apple", "-o", "nowhere/x.png")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: There is no folder nowhere: make it first, or choose another place."
    ]
