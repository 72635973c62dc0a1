"""Shows a run's progress until it ends: a live table on a terminal, lines elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from product_classifier.core.errors import RuntimeServiceError
from product_classifier.runtime.airflow_api import FINISHED, AirflowAPI
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.task_log import tail, task_log

POLL_SECONDS = 1.0
QUIET_SECONDS = 20.0  # without a terminal: a sign of life at least this often
SILENCE_SECONDS = 60.0
FAILURE_LINES = 25
_STYLES = {
    "success": "green",
    "skipped": "bright_black",
    "running": "cyan",
    "failed": "red",
    "upstream_failed": "red",
    "up_for_retry": "yellow",
}


def task_seconds(task: dict[str, Any]) -> float | None:
    """Gives how long a task has run or ran; None where it did not start."""
    if not task.get("start_date"):
        return None
    end = task.get("end_date")
    moment = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return max(0.0, (moment - datetime.fromisoformat(task["start_date"])).total_seconds())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


@dataclass
class RunFollower:
    """Follows one run of the DAG."""

    api: AirflowAPI
    layout: Layout
    console: Console
    run_id: str
    # Gives the last lines of a task's log where it is not on this machine's disk.
    read_log: Callable[[dict[str, Any], int], list[str]] | None = None
    _seen: dict[str, str] = field(default_factory=dict)
    _spoke: float = 0.0

    def follow(self) -> str:
        """Shows progress until the run ends; gives its state, `success` or `failed`."""
        order = self.api.task_order()
        if self.console.is_terminal:
            with Live(console=self.console, refresh_per_second=4) as live:
                return self._poll(lambda tasks: live.update(self._table(order, tasks)))
        return self._poll(lambda tasks: self._lines(order, tasks))

    def _poll(self, show: Callable[[dict[str, Any]], None]) -> str:
        answered = time.monotonic()
        while True:
            try:
                run, tasks = self.api.run(self.run_id), self.api.tasks(self.run_id)
            except RuntimeServiceError:
                # The supervisor restarts an API server that crashed; the run itself goes on.
                if time.monotonic() - answered > SILENCE_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            answered = time.monotonic()
            show(tasks)
            if run["state"] in FINISHED:
                return str(run["state"])
            time.sleep(POLL_SECONDS)

    def _last_line(self, task: dict[str, Any]) -> str:
        if task.get("state") not in ("running", "up_for_retry"):
            return ""
        lines = self._tail(task, 1)
        return lines[0].splitlines()[0] if lines else ""

    def _tail(self, task: dict[str, Any], lines: int) -> list[str]:
        if self.read_log is not None:
            return self.read_log(task, lines)
        return tail(task_log(self.layout, self.run_id, task), lines)

    def _table(self, order: list[str], tasks: dict[str, Any]) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("task", "state", "time"):
            table.add_column(title, no_wrap=True)
        table.add_column("", overflow="ellipsis", no_wrap=True, style="bright_black")
        for name in order:
            task = tasks.get(name, {"task_id": name})
            state = task.get("state") or "waiting"
            style = _STYLES.get(state, "bright_black")
            last = escape(self._last_line(task))
            table.add_row(name, f"[{style}]{state}[/]", _duration(task_seconds(task)), last)
        return table

    def _lines(self, order: list[str], tasks: dict[str, Any]) -> None:
        for name in order:
            task = tasks.get(name, {})
            state = task.get("state") or "waiting"
            if state not in ("waiting", "scheduled", "queued") and self._seen.get(name) != state:
                self._seen[name] = state
                took = _duration(task_seconds(task)) if state != "running" else ""
                self._say(f"{name}: {state}" + (f" ({took})" if took else ""))
        if time.monotonic() - self._spoke > QUIET_SECONDS:
            for name, task in tasks.items():
                if task.get("state") == "running":
                    self._say(f"{name}: {_duration(task_seconds(task))}: {self._last_line(task)}")

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        self.console.print(escape(f"{time.strftime('%H:%M:%S')} {text}"), soft_wrap=True)

    def explain_failure(self) -> None:
        """Prints the end of the failed tasks' logs: the reason is there."""
        for name, task in self.api.tasks(self.run_id).items():
            if task.get("state") != "failed":
                continue
            self.console.print(
                f"\n[red]{name} failed[/] after {task['try_number']} tries. The end of its log:"
            )
            self.console.print(escape("\n".join(self._tail(task, FAILURE_LINES))), soft_wrap=True)
            if self.read_log is None:
                path = task_log(self.layout, self.run_id, task)
                self.console.print(f"[bright_black]{escape(str(path))}[/]", soft_wrap=True)
