"""Write figures down with the command, the day, the machine and the commit that made them."""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.devices import machine_description
from core.errors import InputError
from core.folders import make_folder


def check_output(output: Path | None) -> None:
    """Refuse, before anything is measured, a file that figures cannot be merged into.

    Args:
        output: The file; it need not be there. None is fine.
    """
    if output is None:
        return
    make_folder(output.parent, param="output")
    if output.exists():
        _known(output)


def _known(output: Path) -> dict[str, Any]:
    try:
        found = json.loads(output.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{output} holds no figures ({error}).", param="output") from error
    if not isinstance(found, dict):
        raise InputError(f"{output} holds no JSON object: name another file.", param="output")
    return found


def merge(
    output: Path,
    figures: Mapping[str, object],
    *,
    module: str,
    arguments: Sequence[str] | None = None,
    device: str = "cpu",
) -> None:
    """Write figures into a flat JSON file beside what other commands measured.

    Args:
        output: The file; made if it is not there. Keys that are not among the figures stay.
        figures: What was measured.
        module: The module that was run, as `python -m` names it.
        arguments: Its arguments; None takes the process's own.
        device: Where it ran. Date, machine and commit of a run elsewhere than on the CPU stand
            beside those of the others, as its figures do.
    """
    place = "" if device == "cpu" else f"_{device}"
    known = _known(output) if output.exists() else {}
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", module, *given])
    others = [part for part in known.get("command", "").split(" && ") if part not in {"", command}]
    record = {
        **known,
        **figures,
        "command": " && ".join([*others, command]),
        f"date{place}": datetime.now(UTC).date().isoformat(),
        f"machine{place}": machine_description(),
        f"commit{place}": current_commit(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def current_commit() -> str:
    """Return the commit that is checked out, marked if files other than results were changed."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)  # noqa: S603
        return done.stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", ":/", ":(exclude,top)benchmarks/results"
    )
    return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
