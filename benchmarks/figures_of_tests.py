"""Figures that tests write down while they hold a promise: run them, read pytest's report."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[1]
PLAIN = (  # no shape checks at run time, properties in the report
    "--override-ini=addopts=--import-mode=importlib",
    "--override-ini=junit_family=xunit1",
    "--override-ini=timeout=0",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How tests ended, and what they wrote down.

    Attributes:
        passed: How many did.
        failed: How many did not.
        skipped: How many could not be run here.
        properties: All values of each property, in the order of the tests.
    """

    passed: int
    failed: int
    skipped: int
    properties: Mapping[str, Sequence[float]]

    def total(self, name: str) -> int | None:
        """Return the sum of a property; None where no test wrote it.

        Args:
            name: The property.
        """
        values = self.properties.get(name)
        return None if values is None else int(sum(values))

    def least(self, name: str) -> float | None:
        """Return the least value of a property; None where no test wrote it.

        Args:
            name: The property.
        """
        values = self.properties.get(name)
        return None if values is None else min(values)


def run_tests(files: Sequence[Path], **environment: str) -> Report:
    """Run test files in a process of their own.

    Args:
        files: In this order.
        environment: Variables that are set for them.
    """
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--no-cov", f"--junitxml={report}", *PLAIN]
        command += map(str, files)
        subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=False)  # noqa: S603 - our own tests
        return read_report(report.read_text("utf-8"))


def read_report(text: str) -> Report:
    """Read pytest's report.

    Args:
        text: Its XML.
    """
    cases = list(ET.fromstring(text).iter("testcase"))  # noqa: S314 - pytest wrote it
    kinds = [{child.tag for child in case} for case in cases]
    failed = sum(bool(kind & {"failure", "error"}) for kind in kinds)
    skipped = sum("skipped" in kind for kind in kinds)
    properties: dict[str, list[float]] = {}
    for each in (each for case in cases for each in case.iter("property")):
        properties.setdefault(each.attrib["name"], []).append(float(each.attrib["value"]))
    return Report(
        passed=len(cases) - failed - skipped,
        failed=failed,
        skipped=skipped,
        properties=properties,
    )
