"""Airflow's task logs on disk: JSON lines, read for the terminal."""

import json
from pathlib import Path
from typing import Any

from product_classifier.runtime.airflow_api import DAG_ID
from product_classifier.runtime.layout import Layout

_TAIL_BYTES = 64_000
_NOISE = ("::group::", "::endgroup::", "Log message source", "Task instance in")


def task_log(layout: Layout, run_id: str, task: dict[str, Any]) -> Path:
    """Gives the log file of a task's last try (Airflow's default file name)."""
    folder = layout.airflow_home / "logs" / f"dag_id={DAG_ID}" / f"run_id={run_id}"
    folder /= f"task_id={task['task_id']}"
    if task.get("map_index", -1) >= 0:
        folder /= f"map_index={task['map_index']}"
    return folder / f"attempt={max(1, task['try_number'])}.log"


def _render(line: str) -> str:
    try:
        event = json.loads(line)
    except ValueError:
        return line
    return _render_event(event, line)


def _render_event(event: Any, line: str) -> str:
    text = str(event.get("event", line)) if isinstance(event, dict) else line
    for detail in (event.get("error_detail") or []) if isinstance(event, dict) else []:
        text += f"\n{detail.get('exc_type', 'Error')}: {detail.get('exc_value', '')}"
    return text


def tail(path: Path, lines: int) -> list[str]:
    """Gives the last lines of a task's log as a reader wants them; none where there is no log."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        content = file.read().decode(errors="replace")
    rendered = [_render(line) for line in content.splitlines() if line.strip()]
    return [line for line in rendered if line and not line.startswith(_NOISE)][-lines:]


def render_events(events: list[Any], lines: int) -> list[str]:
    """Gives the last lines of a log that Airflow's API handed out as events."""
    rendered = [_render_event(event, str(event)) for event in events]
    return [line for line in rendered if line and not line.startswith(_NOISE)][-lines:]
