"""One look for all long work: a bar on a terminal, a line every few seconds in a log.

`track` wraps a loop; `progress` is for work that counts in its own rhythm.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import IO, Any, Protocol, TypeVar, cast, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")


def track(
    items: Iterable[Item], label: str, *, total: int | None = None, unit: str = "items"
) -> Iterator[Item]:
    """Yield the items and show how far the loop is.

    Args:
        items: What to loop over.
        label: What is being done, in a few words ("Rendering scenes").
        total: How many there will be; taken from `len(items)` where that is known.
        unit: What is counted, in the plural.

    Yields:
        Each item, counted as done when the next one is asked for.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(label, total=total, unit=unit) as report:
        for item in items:
            yield item
            report.advance()


@runtime_checkable
class Stream(Protocol):
    """Where progress can be written: an open text file, or what stands in for one."""

    def write(self, text: str, /) -> Any:  # noqa: ANN401  (files return int, some return None)
        """Append a text."""

    def flush(self) -> None:
        """Make what was written visible."""

    def isatty(self) -> bool:
        """Return whether somebody looks at it who can see a moving bar."""


@runtime_checkable
class Report(Protocol):
    """What long work tells about itself."""

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Count finished work.

        Args:
            count: How much was finished since the last call, in units.
            note: A few words that stand behind the numbers ("loss 0.112"); kept until replaced.
        """


@contextmanager
def progress(
    label: str,
    *,
    total: int | None = None,
    done: int = 0,
    unit: str = "items",
    stream: Stream | None = None,
    interval_s: float = 10.0,
) -> Iterator[Report]:
    """Show label, count, rate and remaining time of the work inside the block.

    Args:
        label: What is being done, in a few words.
        total: How much there is to do, in units; None if nobody knows.
        done: How much was done before this run (a resumed training); no part of the rate.
        unit: What is counted, in the plural.
        stream: Where to write; standard error by default, so that output can be piped.
        interval_s: Seconds between two lines where the stream is not a terminal.

    Yields:
        The report that the work advances.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        with _bar(Console(file=cast("IO[str]", stream)), unit) as bar:
            yield _BarReport(bar, bar.add_task(label, total=total, completed=done, note=""))
        return
    lines = LineReport(
        label, total=total, done=done, unit=unit, stream=stream, interval_s=interval_s
    )
    try:
        yield lines
    finally:
        lines.close()


class LineReport:
    """Progress as plain lines: for logs, pipes and continuous integration.

    Args:
        label: What is being done.
        total: How much there is to do, in units; None if nobody knows.
        done: How much was done before; no part of the rate.
        unit: What is counted, in the plural.
        stream: Where the lines go.
        interval_s: Seconds between two lines.
        clock: Seconds from any origin that never run backwards.
    """

    def __init__(
        self,
        label: str,
        *,
        total: int | None,
        done: int = 0,
        unit: str,
        stream: Stream,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._stream, self._interval_s, self._clock = stream, interval_s, clock
        self._done = self._done_before = done
        self._note = ""
        self._started = self._written = clock()

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Count finished work, and write a line when the last one is old enough.

        Args:
            count: How much was finished since the last call, in units.
            note: A few words that stand behind the numbers; kept until replaced.
        """
        self._done += count
        self._note = note or self._note
        if self._clock() - self._written >= self._interval_s:
            self._write(self._remaining())

    def close(self) -> None:
        """Write the last line, with the time it all took."""
        self._write(f"took {_clock_face(self._clock() - self._started)}")

    def _write(self, ending: str) -> None:
        self._written = self._clock()
        of_total = f"/{self._total}" if self._total is not None else ""
        parts = [f"{self._done}{of_total} {self._unit}", f"{_short(self._rate())}/s", ending]
        if self._note:
            parts.append(self._note)
        self._stream.write(f"{self._label}: {', '.join(parts)}\n")
        self._stream.flush()

    def _rate(self) -> float:
        return (self._done - self._done_before) / max(self._clock() - self._started, 1e-9)

    def _remaining(self) -> str:
        if self._total is None or self._rate() == 0:
            return f"{_clock_face(self._clock() - self._started)} so far"
        return f"{_clock_face((self._total - self._done) / self._rate())} left"


class _BarReport:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, count: int = 1, *, note: str = "") -> None:
        self._bar.advance(self._task, count)
        if note:
            self._bar.update(self._task, note=note)


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{_short(speed)} {self._unit}/s" if speed else "", style="progress.data.speed")


def _bar(console: Console, unit: str) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console,
    )


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _clock_face(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
