"""A tiny random checkpoint, and the command as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.conftest import stepped
from tests.pipelines.conftest import folder, make_folder, pytest_configure

__all__ = ["folder", "make_folder", "pytest_configure", "stepped"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fewstroke(tmp_path: Path) -> Run:
    """Run `fewstroke` in a process of its own, in an empty folder."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "200"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
