from benchmarks.bench_studio import read_report

REPORT = """<testsuites><testsuite>
<testcase name="a"><properties><property name="axe_violations" value="2"/>
<property name="interactive_s" value="0.4"/></properties></testcase>
<testcase name="b"><properties><property name="axe_violations" value="1"/>
<property name="interactive_s" value="0.3"/></properties><failure message="no"/></testcase>
<testcase name="c"><skipped message="no browser"/></testcase>
</testsuite></testsuites>"""


def test_figures_are_those_of_the_report_and_null_where_there_are_none() -> None:
    figures = read_report(REPORT)
    assert figures["flow_tests"] == 1
    assert figures["flow_tests_failed"] == 1
    assert figures["flow_tests_skipped"] == 1
    assert figures["axe_violations"] == 3
    assert figures["interactive_s"] == 0.3
    assert figures["page_kb"] is None
