import io

import pytest
from rich.console import Console

from core.progress import LineReport, _bar, _BarReport, progress, track


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log():
    return io.StringIO()


@pytest.fixture
def clock():
    return Clock()


def line_report(log, clock, **changes):
    settings = {"total": 100, "unit": "steps", "interval_s": 10.0} | changes
    return LineReport("Training", stream=log, clock=clock, **settings)


def test_track_yields_every_item_in_order_and_counts_them(capsys):
    assert list(track([3, 1, 2], "Counting", unit="numbers")) == [3, 1, 2]
    assert capsys.readouterr().err.startswith("Counting: 3/3 numbers, ")


def test_track_counts_only_what_was_finished(capsys):
    for item in track(range(10), "Counting"):
        if item == 4:
            break
    assert capsys.readouterr().err.startswith("Counting: 4/10 items, ")


def test_a_log_gets_one_line_per_interval(log, clock):
    report = line_report(log, clock)
    for _ in range(40):
        clock.now_s += 1
        report.advance()
    assert log.getvalue().splitlines() == [
        "Training: 10/100 steps, 1/s, 0:01:30 left",
        "Training: 20/100 steps, 1/s, 0:01:20 left",
        "Training: 30/100 steps, 1/s, 0:01:10 left",
        "Training: 40/100 steps, 1/s, 0:01:00 left",
    ]


def test_the_last_line_says_how_long_it_took(log, clock):
    report = line_report(log, clock)
    clock.now_s = 3725
    report.close()
    assert log.getvalue() == "Training: 0/100 steps, 0/s, took 1:02:05\n"


def test_work_of_unknown_length_shows_no_remaining_time(log, clock):
    report = line_report(log, clock, total=None)
    clock.now_s = 20
    report.advance(5)
    assert log.getvalue() == "Training: 5 steps, 0.25/s, 0:00:20 so far\n"


def test_resumed_work_counts_from_where_it_was_and_does_not_flatter_its_rate(log, clock):
    report = line_report(log, clock, done=80)
    clock.now_s = 10
    report.advance(10)
    assert log.getvalue() == "Training: 90/100 steps, 1/s, 0:00:10 left\n"


def test_a_note_stays_until_it_is_replaced(log, clock):
    report = line_report(log, clock)
    report.advance(note="loss 0.5")
    clock.now_s = 10
    report.advance()
    clock.now_s = 20
    report.advance(note="loss 0.4")
    assert [line.rpartition(", ")[2] for line in log.getvalue().splitlines()] == [
        "loss 0.5",
        "loss 0.4",
    ]


def test_failed_work_still_says_how_far_it_came(log):
    with pytest.raises(RuntimeError), progress("Training", total=9, stream=log) as report:
        report.advance(4)
        raise RuntimeError
    assert log.getvalue().startswith("Training: 4/9 items")


def test_a_terminal_gets_a_bar_and_no_lines():
    terminal = Terminal()
    with progress("Training", total=4, unit="steps", stream=terminal) as report:
        report.advance(4, note="loss 0.1")
    assert "Training" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert "took" not in terminal.getvalue()


def test_the_bar_shows_count_rate_and_note():
    console = Console(file=io.StringIO(), width=120)
    bar = _bar(console, "steps")
    bar.get_time = iter(range(100)).__next__
    report = _BarReport(bar, bar.add_task("Training", total=10, note=""))
    for _ in range(5):
        report.advance(note="loss 0.2")
    with console.capture() as shown:
        console.print(bar.get_renderable())
    assert "5/10" in shown.get()
    assert "steps/s" in shown.get()
    assert "loss 0.2" in shown.get()


def test_a_stream_of_unknown_length_is_counted_without_a_total(capsys):
    assert list(track((number for number in (1, 2)), "Counting")) == [1, 2]
    assert capsys.readouterr().err.startswith("Counting: 2 items, ")
    assert list(track(iter((1, 2)), "Counting", total=2)) == [1, 2]
    assert capsys.readouterr().err.startswith("Counting: 2/2 items, ")


def test_work_without_a_note_leaves_the_last_one_standing():
    terminal = Terminal()
    with progress("Training", total=2, stream=terminal) as report:
        report.advance(note="loss 0.1")
        report.advance()
    assert "loss 0.1" in terminal.getvalue().rpartition("Training")[2]
