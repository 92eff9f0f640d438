"""What the studio costs a browser, and whether it keeps its manners.

    python -m benchmarks.bench_studio --output benchmarks/results/studio.json

Runs the browser's tests and reads what they measured. With --screenshots they also draw the
pictures of the documents.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from xml.etree import ElementTree as ET

import typer

from evaluation.record import merge

ROOT = Path(__file__).parents[1]
TESTS = "tests/e2e/studio"
FIRST = ("test_flow.py", "test_manners.py")  # what draws and what measures
PLAIN = (  # no shape checks at run time, properties in the report
    "--override-ini=addopts=--import-mode=importlib",
    "--override-ini=junit_family=xunit1",
)


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    screenshots: Annotated[
        Path | None, typer.Option(help="Folder for the documents' pictures.")
    ] = None,
) -> None:
    """Run the studio in Chromium, and write down what was seen."""
    figures = measure(screenshots)
    merge(output, figures, module="benchmarks.bench_studio")
    print(json.dumps(figures, indent=1))


def measure(screenshots: Path | None = None) -> dict[str, float | int | None]:
    """Run the tests of the page and collect what they recorded.

    Args:
        screenshots: Where they draw pictures; None draws none.

    Returns:
        flow_tests: Tests of the page that passed; flow_tests_failed and flow_tests_skipped, the
            others.
        axe_violations: Over all pages, themes and widths that were audited.
        page_kb: What a first visit fetches, compressed, in 1,000 bytes; page_unpacked_kb, as it is.
        interactive_s: From the address to a page that answers; the best of five.
        layout_shift: Chromium's measure of what moved by itself, 0 for nothing.
        console_errors, foreign_requests: Counted over all tests.
        What was not measured is None.
    """
    environment = dict(os.environ)
    if screenshots is not None:
        environment["STUDIO_SCREENSHOTS"] = str(screenshots.resolve())
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        files = sorted((ROOT / TESTS).glob("test_*.py"), key=lambda path: path.name not in FIRST)
        command = [sys.executable, "-m", "pytest", "-q", "--no-cov", f"--junitxml={report}", *PLAIN]
        command += map(str, files)
        subprocess.run(command, cwd=ROOT, env=environment, check=False)  # noqa: S603 - our own tests
        return read_report(report.read_text("utf-8"))


def read_report(text: str) -> dict[str, float | int | None]:
    """Read the figures out of pytest's report.

    Args:
        text: Its XML.

    Returns:
        The figures, as `measure` says.
    """
    cases = list(ET.fromstring(text).iter("testcase"))  # noqa: S314 - pytest wrote it
    kinds = [{child.tag for child in case} for case in cases]
    failed = sum(bool(kind & {"failure", "error"}) for kind in kinds)
    skipped = sum("skipped" in kind for kind in kinds)
    found: dict[str, list[float]] = {}
    for each in (each for case in cases for each in case.iter("property")):
        found.setdefault(each.attrib["name"], []).append(float(each.attrib["value"]))
    return {
        "flow_tests": len(cases) - failed - skipped,
        "flow_tests_failed": failed,
        "flow_tests_skipped": skipped,
        "axe_violations": _whole(found.get("axe_violations")),
        "page_kb": _least(found.get("page_kb")),
        "page_unpacked_kb": _least(found.get("page_unpacked_kb")),
        "interactive_s": _least(found.get("interactive_s")),
        "layout_shift": _least(found.get("layout_shift")),
        "console_errors": _whole(found.get("console_errors")),
        "foreign_requests": _whole(found.get("foreign_requests")),
    }


def _least(values: Iterable[float] | None) -> float | None:
    return None if values is None else min(values)


def _whole(values: Iterable[float] | None) -> int | None:
    return None if values is None else int(sum(values))


if __name__ == "__main__":
    typer.run(main)
