"""What a stranger waits and downloads from a fresh clone to the first picture, and to the tests.

    python -m benchmarks.bench_setup --output benchmarks/results/teacher.json

Clones the last commit into an empty folder and calls the README's own commands there, the first a
second time as well. Nothing of this checkout's environment is used; packages come from wherever pip
takes them, its cache included.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.command import run_command
from core.errors import ConfigError
from evaluation.record import check_output, merge

REPOSITORY = Path(__file__).parents[1]
MEGABYTE = 1e6
RUN = ("make", "run", "ONCE=1")
TEST = ("make", "test")


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    with_tests: Annotated[
        bool, typer.Option("--with-tests", help="Also call `make test`, in another clone.")
    ] = False,
) -> None:
    """Measure the README's commands in a fresh clone."""
    check_output(output)
    figures = measure(RUN, "run")
    merge(output, figures, module="benchmarks.bench_setup")
    if with_tests:
        tested = measure(TEST, "test", again=False)
        merge(output, tested, module="benchmarks.bench_setup")
        figures |= tested
    print(json.dumps(figures, indent=1))


def measure(command: tuple[str, ...], name: str, *, again: bool = True) -> dict[str, float]:
    """Time a command in a fresh clone.

    Args:
        command: What the README says to type.
        name: What the figures are called after.
        again: Whether to call it a second time, with everything in place.

    Returns:
        setup_NAME_s: The first call, set-up included.
        setup_NAME_mb: What the environment then takes on disk, in 10^6 bytes.
        again_NAME_s: The second call. A command that fails is raised as ConfigError.
    """
    with TemporaryDirectory() as folder:
        clone = Path(folder) / "fewstroke"
        _seconds(("git", "clone", "--quiet", str(REPOSITORY), str(clone)), REPOSITORY)
        figures = {f"setup_{name}_s": _seconds(command, clone)}
        figures[f"setup_{name}_mb"] = _megabytes(clone / ".venv")
        if again:
            figures[f"again_{name}_s"] = _seconds(command, clone)
    return figures


def _seconds(command: tuple[str, ...], folder: Path) -> float:
    started = time.perf_counter()
    # A stranger's shell: no environment is active, and no setting of ours is set.
    stranger = {
        key: value
        for key, value in os.environ.items()
        if key != "VIRTUAL_ENV" and not key.startswith(("FEWSTROKE_", "OMP_"))
    }
    # What it says goes to the terminal: it takes minutes, and a failure needs all of it.
    found = subprocess.run(command, cwd=folder, env=stranger, check=False)  # noqa: S603
    if found.returncode:
        raise ConfigError(
            f"{' '.join(command)} ended with {found.returncode} in {folder}; it said why above."
        )
    return round(time.perf_counter() - started, 1)


def _megabytes(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return round(sum(path.stat().st_size for path in files) / MEGABYTE)


if __name__ == "__main__":
    run_command(main)
