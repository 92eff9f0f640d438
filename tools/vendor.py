"""Brings scripts of others into the repository, once, so that nothing is fetched when it runs.

    .venv/bin/python tools/vendor.py            fetch what tools/vendor.json names, and check it
    .venv/bin/python tools/vendor.py --check    check what is here, without a network

A package's archive must have the digest that the list names, and each file of it its own.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tools" / "vendor.json"


def main() -> int:
    """Fetch or check, and tell what is wrong; returns the exit status."""
    packages = json.loads(LIST.read_text("ascii"))
    if "--check" not in sys.argv[1:]:
        for package in packages:
            fetch(package)
    wrong = list(faults(packages))
    for fault in wrong:
        print(fault, file=sys.stderr)
    print(f"vendor: {len(packages)} packages, {len(wrong)} faults")
    return 1 if wrong else 0


def fetch(package: Mapping[str, Any]) -> None:
    """Fetch one package with npm and take the listed files out of it.

    Args:
        package: An entry of the list.
    """
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is needed to fetch; to check what is here, use --check.")
    with TemporaryDirectory() as folder:
        name = f"{package['package']}@{package['version']}"
        subprocess.run(  # noqa: S603 - arguments are our own list's
            [npm, "pack", "--silent", name], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        archive = next(Path(folder).glob("*.tgz"))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != package["integrity"]:
            sys.exit(f"{name} has integrity sha512-{digest}, not {package['integrity']}.")
        with tarfile.open(archive) as tar:
            for file in package["files"]:
                member = tar.extractfile(f"package/{file['from']}")
                assert member is not None
                target = ROOT / file["to"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(member.read())


def faults(packages: list[Mapping[str, Any]]) -> Iterator[str]:
    """Tell which vendored files are missing or are not what the list says.

    Args:
        packages: The list.

    Yields:
        One sentence per fault.
    """
    for package in packages:
        for file in package["files"]:
            target = ROOT / file["to"]
            if not target.is_file():
                yield f"{file['to']} is missing: run tools/vendor.py."
                continue
            found = hashlib.sha256(target.read_bytes()).hexdigest()
            if found != file["sha256"]:
                yield f"{file['to']} was changed: it has sha256 {found}, not {file['sha256']}."


if __name__ == "__main__":
    sys.exit(main())
