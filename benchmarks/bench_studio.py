"""What the studio costs a browser, and whether it keeps its manners.

    python -m benchmarks.bench_studio --output benchmarks/results/studio.json

Runs the browser's tests and reads what they measured. With --screenshots they also draw the
pictures of the documents.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import run_command
from benchmarks.figures_of_tests import ROOT, Report, run_tests
from evaluation.record import check_output, merge

TESTS = "tests/e2e/studio"
FIRST = ("test_flow.py", "test_manners.py")  # what draws and what measures


def main(
    *,
    output: Annotated[Path, typer.Option(help="JSON file to write; other keys in it stay.")],
    screenshots: Annotated[
        Path | None, typer.Option(help="Folder for the documents' pictures.")
    ] = None,
) -> None:
    """Run the studio in Chromium, and write down what was seen."""
    check_output(output)
    files = sorted((ROOT / TESTS).glob("test_*.py"), key=lambda path: path.name not in FIRST)
    wanted = {} if screenshots is None else {"STUDIO_SCREENSHOTS": str(screenshots.resolve())}
    figures = figures_of(run_tests(files, **wanted))
    merge(output, figures, module="benchmarks.bench_studio")
    print(json.dumps(figures, indent=1))


def figures_of(report: Report) -> dict[str, float | int | None]:
    """Return what the tests of the page recorded.

    Args:
        report: How they ended.

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
    return {
        "flow_tests": report.passed,
        "flow_tests_failed": report.failed,
        "flow_tests_skipped": report.skipped,
        "axe_violations": report.total("axe_violations"),
        "page_kb": report.least("page_kb"),
        "page_unpacked_kb": report.least("page_unpacked_kb"),
        "interactive_s": report.least("interactive_s"),
        "layout_shift": report.least("layout_shift"),
        "console_errors": report.total("console_errors"),
        "foreign_requests": report.total("foreign_requests"),
    }


if __name__ == "__main__":
    run_command(main)
