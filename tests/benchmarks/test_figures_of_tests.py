from pathlib import Path

from benchmarks import figures_of_tests
from benchmarks.bench_studio import figures_of

REPORT = """<testsuites><testsuite>
<testcase name="a"><properties><property name="axe_violations" value="2"/>
<property name="interactive_s" value="0.4"/></properties></testcase>
<testcase name="b"><properties><property name="axe_violations" value="1"/>
<property name="interactive_s" value="0.3"/></properties><failure message="no"/></testcase>
<testcase name="c"><skipped message="no browser"/></testcase>
</testsuite></testsuites>"""

TESTS = """
import os

def test_kept(record_property):
    record_property("calls", int(os.environ["CALLS"]))

def test_broken(record_property):
    record_property("calls", 5)
    assert False
"""


def test_figures_are_those_of_the_report_and_null_where_there_are_none() -> None:
    figures = figures_of(figures_of_tests.read_report(REPORT))
    assert figures["flow_tests"] == 1
    assert figures["flow_tests_failed"] == 1
    assert figures["flow_tests_skipped"] == 1
    assert figures["axe_violations"] == 3
    assert figures["interactive_s"] == 0.3
    assert figures["page_kb"] is None


def test_what_tests_wrote_down_is_read_whether_they_passed_or_not(tmp_path: Path) -> None:
    file = tmp_path / "test_both.py"
    file.write_text(TESTS)
    report = figures_of_tests.run_tests([file], CALLS="37")
    assert (report.passed, report.failed, report.total("calls")) == (1, 1, 42)
