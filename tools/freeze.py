"""Writes constraints.txt: the exact version of all that Fewstroke needs, as installed here.

Run it in an environment whose tests pass: `.venv/bin/python tools/freeze.py`.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEADER = """\
# The exact versions that the tests passed with; written by tools/freeze.py.
# tools/setup.sh installs torch first, by itself: resolved together with the rest, pip may pick
# a build several times as large.
"""
EXTRAS = ("train", "dev", "openvino")


def main() -> None:
    """Write constraints.txt at the repository root."""
    lines = [
        f"{name}=={version}" for name, version in sorted(_closure("fewstroke", EXTRAS).items())
    ]
    target = Path(__file__).parents[1] / "constraints.txt"
    target.write_text(HEADER + "\n".join(lines) + "\n", encoding="ascii")
    sys.stdout.write(f"{target.name}: {len(lines)} packages\n")


def _closure(root: str, extras: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(root, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue  # asked for on another system only
        if name != root:
            found[name] = installed.version.partition("+")[0]  # "+cpu" names a build, not a version
        for requirement in map(Requirement, installed.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                waiting += [(wanted, part) for part in ("", *requirement.extras)]
    return found


if __name__ == "__main__":
    main()
