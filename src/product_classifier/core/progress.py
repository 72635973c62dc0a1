"""Progress of long work: a bar on a terminal, a log line every few seconds elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS = 5.0


class ProgressReporter:
    """Counts units of work done; `advance` is cheap enough to call for each product."""

    def __init__(self, title: str, total: int | None, unit: str, bar: Progress | None) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self._last: int | None = None  # what the last log line said
        self._bar = bar
        self._task = bar.add_task(title, total=total) if bar else None
        self._started = self._logged = time.monotonic()

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self.done / max(time.monotonic() - self._started, 1e-9)

    def advance(self, count: int = 1) -> None:
        """Adds `count` finished units."""
        self.done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count)
        elif time.monotonic() - self._logged >= LOG_INTERVAL_SECONDS:
            self._logged = time.monotonic()
            self.log()

    @property
    def unlogged(self) -> bool:
        """Whether something was done since the last log line, or there was none."""
        return self._last != self.done

    def log(self) -> None:
        """Writes where the work stands as one log line."""
        self._last = self.done
        total = f"/{self.total}" if self.total is not None else ""
        logger.info(
            "%s: %d%s %s, %.1f per second", self.title, self.done, total, self.unit, self.rate
        )


@contextmanager
def report_progress(title: str, total: int | None, unit: str) -> Iterator[ProgressReporter]:
    """Reports the progress of one piece of work.

    Args:
        title: What is being done, as "Extracting photo features".
        total: Units to do; None where nobody knows.
        unit: Plural of what is counted, as "photos".
    """
    if not sys.stderr.isatty():
        reporter = ProgressReporter(title, total, unit, None)
        yield reporter
        if reporter.unlogged:
            reporter.log()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield ProgressReporter(title, total, unit, bar)
