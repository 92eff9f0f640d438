import subprocess
import sys
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from cli.main import build_app, main
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


def test_a_command_whose_packages_are_missing_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> NoReturn:
        raise ModuleNotFoundError("No module named 'skimage_'", name="skimage_.color")

    monkeypatch.setattr("cli.main.build_app", lambda: broken)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "needs skimage_.color, which is not installed" in told
    assert "make setup" in told


def test_a_missing_part_of_what_is_installed_is_a_fault_and_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> NoReturn:
        raise ModuleNotFoundError("No module named 'cli.nothing'", name="cli.nothing")

    monkeypatch.setattr("cli.main.build_app", lambda: broken)
    with pytest.raises(ModuleNotFoundError):
        main()
