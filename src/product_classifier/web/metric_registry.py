"""A service's metrics: of this process, or of all processes that answer on one socket.

Where `PROMETHEUS_MULTIPROC_DIR` names a folder, prometheus_client keeps every value in a file of it, and whichever
process is asked shows the sum of all. The folder belongs to one service and should be empty when that service starts:
counters of an earlier run would go on. The variable is read when prometheus_client is imported.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from product_classifier.core.errors import ConfigurationError

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
REFRESH_SECONDS = 1.0  # between two looks at what other processes can't read for themselves


class MetricRegistry(CollectorRegistry):
    """Where the metrics of one app are; every gauge on it needs a `multiprocess_mode` that begins with `live`.

    An information metric (`..._info`) whose value was set to 0 is no longer shown.
    """

    def __init__(self) -> None:
        """Makes an empty registry.

        Raises:
            ConfigurationError: the folder of PROMETHEUS_MULTIPROC_DIR can't be used.
        """
        super().__init__()
        # A third more series, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._folder = _shared_folder()
        self._refreshers: list[Callable[[], None]] = []
        self._faults: dict[Callable[[], None], str] = {}
        if self._folder is None:
            # Each process has its own; a sum of them would say nothing.
            ProcessCollector(registry=self)
            PlatformCollector(registry=self)
        else:
            _forget_earlier_self(self._folder, os.getpid())

    @property
    def folder(self) -> Path | None:
        """Where several processes share their metrics; None where this one is alone."""
        return self._folder

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Calls `refresh` before the metrics are shown; every second too where processes share them.

        What it raises is logged, once until it says something else, and hides no other metric.
        """
        self._refreshers.append(refresh)

    def watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Keeps a gauge at what `read` gives, which must not wait."""
        gauge.set(read())
        self.before_scrape(lambda: gauge.set(read()))

    def collect(self) -> Iterator[Metric]:
        """Gives the metrics as they are now."""
        for metric in self._collect():
            if metric.name.endswith("_info"):
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric

    def _collect(self) -> Iterator[Metric]:
        self._refresh()
        if self._folder is None:
            yield from super().collect()
            return
        _forget_dead_processes(self._folder)
        collector = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        yield from collector.collect()  # type: ignore[no-untyped-call]

    def _refresh(self) -> None:
        for refresh in self._refreshers:
            try:
                refresh()
            except Exception as error:  # a scrape that fails would be a service that is down
                text = f"{type(error).__name__}: {error}"
                if self._faults.get(refresh) != text:
                    logger.warning("A metric stays as it was: %s", text, exc_info=True)
                self._faults[refresh] = text
            else:
                self._faults.pop(refresh, None)

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Shows the other processes what is watched here, for the block."""
        if self._folder is None:
            yield
            return
        task = asyncio.create_task(self._refresh_forever(), name="metrics-refresh")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            self._refresh()


def _shared_folder() -> Path | None:
    text = os.environ.get(FOLDER_VARIABLE)
    if text is None:
        return None
    folder = Path(text)
    if not text or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigurationError(
            f"{FOLDER_VARIABLE} must name a folder that this service can write to. "
            f"Received: {text!r}."
        )
    return folder


@cache  # once for a process, before its first value
def _forget_earlier_self(folder: Path, pid: int) -> None:
    """Drops the gauges of a process that had this one's number: in containers it is often 1."""
    _forget(folder, pid)


def _forget(folder: Path, pid: int) -> None:
    # Two scrapes at one time meet the same dead process; what is left of it goes with the next.
    with suppress(FileNotFoundError):
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _forget_dead_processes(folder: Path) -> None:
    """Drops the gauges of processes that are gone; what they counted stays in the sums."""
    for pid in {pid_of(file) for file in folder.glob("gauge_live*_*.db")}:
        if pid is not None and not is_alive(pid):
            _forget(folder, pid)


def pid_of(file: Path) -> int | None:
    """Reads the number of the process that a file belongs to off the end of its name; None where there is none."""
    number = file.stem.rpartition("_")[2]
    return int(number) if number.isdecimal() else None


def is_alive(pid: int) -> bool:
    """Tells whether a process of this number lives."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a number that no process can have
        return False
    except OSError:  # another user's, so it lives
        return True
    return True
