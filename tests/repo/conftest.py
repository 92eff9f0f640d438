"""The files of the repository, as git sees them."""

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tracked(repository) -> list[Path]:
    """Every file that git tracks or would add; none that it ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=repository, capture_output=True, check=True, text=True)
    paths = (repository / name for name in names.stdout.split("\0") if name)
    return sorted(path for path in set(paths) if path.is_file())


@pytest.fixture(scope="session")
def sources(tracked) -> list[Path]:
    """Every Python file of ours."""
    return [path for path in tracked if path.suffix == ".py"]
