"""What tasks and runs tell Prometheus: a text file per DAG, kept by Airflow's callbacks.

A task's callbacks run in its own process on a worker; those of a run, and those of a task that was lost, in the DAG
processor. So writers meet: they take a lock, read what is there, add to it and replace the file in one step. It lies in
PIPELINE_METRICS_PATH, where an exporter reads it; without that variable nothing is written.

Nothing here may fail a task or hold it up: a fault is a warning in its log.

- `failed` is for good: a try that is tried again calls no callback. With Airflow 3.3.2 a task whose process was killed,
  or that somebody marked failed, calls none either, and is named at the end of its run only; one whose worker was lost
  calls twice. So each failure is noted, and counted once.
- `skipped` is a task that found nothing to do; what Airflow itself skips after it is not counted.
- A run fails with any of its tasks. Where it is a report alone, models, predictions and services are as new as after a
  success: it has delivered, and nobody should be told that the pipeline failed.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.sdk import Context

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "PIPELINE_METRICS_PATH"
LOCK_SECONDS = 5.0

TASK_RUNS = "product_classifier_task_runs_total"
TASK_SUCCESS_AT = "product_classifier_task_last_success_timestamp_seconds"
TASK_DURATION = "product_classifier_task_last_duration_seconds"
RUNS = "product_classifier_pipeline_runs_total"
RUN_SUCCEEDED = "product_classifier_pipeline_last_run_success"
RUN_DELIVERED = "product_classifier_pipeline_last_run_delivered"
RUN_SUCCESS_AT = "product_classifier_pipeline_last_success_timestamp_seconds"
RUN_DURATION = "product_classifier_pipeline_last_duration_seconds"

# Labels and help of each; docs/metrics.md says more, and a test holds the two to each other.
METRICS = {
    TASK_RUNS: (("dag", "task", "state"), "Ends of a task."),
    TASK_SUCCESS_AT: (("dag", "task"), "When the task last succeeded."),
    TASK_DURATION: (("dag", "task"), "How long the task took when it last succeeded."),
    RUNS: (("dag", "state"), "Ends of a whole run."),
    RUN_SUCCEEDED: (("dag",), "1 where the last finished run succeeded."),
    RUN_DELIVERED: (("dag",), "1 where the last finished run did all but reports, at least."),
    RUN_SUCCESS_AT: (("dag",), "When a run last delivered."),
    RUN_DURATION: (("dag",), "How long the last finished run took."),
}
TASK_STATES = ("success", "failed", "skipped")
RUN_STATES = ("success", "failed")
REPORTS = ("drift",)  # tasks that nothing is made of
RUNS_NOTED = 20

Figures = dict[str, dict[tuple[str, ...], float]]  # metric -> values of its labels -> value


def count_success(context: Context) -> None:
    """Counts a task that succeeded, with when and how long."""
    _count_task(context, "success")


def count_failure(context: Context) -> None:
    """Counts a task that failed for good."""
    _count_task(context, "failed")


def count_skip(context: Context) -> None:
    """Counts a task that found nothing to do."""
    _count_task(context, "skipped")


def count_run_success(context: Context) -> None:
    """Counts a run that succeeded, with when and how long."""
    _count_run(context, "success")


def count_run_failure(context: Context) -> None:
    """Counts a run that failed, with how long it took."""
    _count_run(context, "failed")


def _count_task(context: Context, state: str) -> None:
    ti = context["ti"]

    def change(figures: Figures, path: Path) -> None:
        if state == "failed":
            _add_failure(figures, path, ti)
            return
        _add(figures[TASK_RUNS], (ti.dag_id, ti.task_id, state))
        if state == "success":
            _note_end(figures, ti, TASK_SUCCESS_AT, TASK_DURATION, (ti.dag_id, ti.task_id))

    _update(context, change)


def _count_run(context: Context, state: str) -> None:
    # Where no task can be named, Airflow gives the DAG alone.
    run, ti, dag_id = context.get("dag_run"), context.get("ti"), context["dag"].dag_id

    def change(figures: Figures, path: Path) -> None:
        _add(figures[RUNS], (dag_id, state))
        if context.get("reason") == "task_failure" and ti is not None:
            _add_failure(figures, path, ti)
        delivered = state == "success" or _has_delivered(figures, context["dag"], run)
        figures[RUN_SUCCEEDED][(dag_id,)] = float(state == "success")
        figures[RUN_DELIVERED][(dag_id,)] = float(delivered)
        success_at = RUN_SUCCESS_AT if delivered else None
        _note_end(figures, run, success_at, RUN_DURATION, (dag_id,))

    _update(context, change)


def _has_delivered(figures: Figures, dag: Any, run: Any) -> bool:
    """Tells whether each branch of the DAG that does not end in a report has succeeded to its end in this run."""
    # Unlike its start this stays when a task is cleared.
    asked_for: datetime | None = getattr(run, "run_after", None)
    ends = [task.task_id for task in dag.leaves]
    ends = [name for name in ends if name.rpartition(".")[2] not in REPORTS]
    if asked_for is None or not ends:
        return False
    succeeded_at = figures[TASK_SUCCESS_AT]
    return all(succeeded_at.get((dag.dag_id, name), 0) >= asked_for.timestamp() for name in ends)


def _add(counts: dict[tuple[str, ...], float], labels: tuple[str, ...]) -> None:
    counts[labels] = counts.get(labels, 0) + 1


def _add_failure(figures: Figures, path: Path, ti: Any) -> None:
    """Counts a task's failure, unless it is counted already."""
    notes_file = path.with_name(f".{path.stem}.failures.json")
    try:
        notes: dict[str, list[str]] = json.loads(notes_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        notes = {}
    tries = notes.get(ti.run_id, [])
    one = f"{ti.task_id} {ti.map_index} {ti.try_number}"
    if one in tries:
        return
    _add(figures[TASK_RUNS], (ti.dag_id, ti.task_id, "failed"))
    # Runs follow one another: those before the last few call nothing any more.
    kept = dict(list({**notes, ti.run_id: [*tries, one]}.items())[-RUNS_NOTED:])
    _replace(notes_file, json.dumps(kept).encode())


def _note_end(
    figures: Figures, ended: Any, at: str | None, duration: str, labels: tuple[str, ...]
) -> None:
    start: datetime | None = getattr(ended, "start_date", None)
    end: datetime | None = getattr(ended, "end_date", None)
    moment = end.timestamp() if end else time.time()
    if at is not None:
        figures[at][labels] = moment
    if start is not None:
        figures[duration][labels] = moment - start.timestamp()


def _update(context: Context, change: Callable[[Figures, Path], None]) -> None:
    """Changes the figures of the context's DAG; only warns where that can't be done."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    try:
        dag = context["dag"]
        path = Path(folder) / f"{dag.dag_id.lower()}.prom"
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            figures = _forget_others(_read(path), dag.dag_id, set(dag.task_ids))
            change(figures, path)
            _write(path, figures)
    except Exception as error:  # a task's outcome is not that of its metrics
        logger.warning(
            "The metrics of this end were not written: %s: %s", type(error).__name__, error
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Opened for reading: another user id may have made it. The kernel drops the lock with the process.
    lock = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{lock} is held for {LOCK_SECONDS:g} s") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> Figures:
    # Not while the DAG is parsed: only a callback needs it.
    from prometheus_client.parser import text_string_to_metric_families

    figures: Figures = {name: {} for name in METRICS}
    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return figures
    except ValueError as error:
        logger.warning("%s can't be read, so its counts begin anew: %s", path, error)
        return figures
    for sample in (sample for family in families for sample in family.samples):
        if sample.name in METRICS:
            labels = tuple(sample.labels[label] for label in METRICS[sample.name][0])
            figures[sample.name][labels] = sample.value
    return figures


def _forget_others(figures: Figures, dag_id: str, task_ids: set[str]) -> Figures:
    """Drops tasks that the DAG has no more, and gives each one that it has a count to begin from.

    A count that appears with its first failure would be no increase to Prometheus.
    """
    kept = {
        name: {
            labels: value
            for labels, value in values.items()
            if "task" not in METRICS[name][0] or labels[1] in task_ids
        }
        for name, values in figures.items()
    }
    for state in TASK_STATES:
        for task_id in task_ids:
            kept[TASK_RUNS].setdefault((dag_id, task_id, state), 0)
    for state in RUN_STATES:
        kept[RUNS].setdefault((dag_id, state), 0)
    return kept


def _write(path: Path, figures: Figures) -> None:
    from prometheus_client import generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    class Figured:
        def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
            for name, (labels, text) in METRICS.items():
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                family = kind(name, text, labels=labels)
                for values, value in sorted(figures[name].items()):
                    family.add_metric(values, value)
                if figures[name]:
                    yield family

    _replace(path, generate_latest(Figured()))


def _replace(path: Path, content: bytes) -> None:
    # One name for all writers, who hold the lock: what a killed one leaves, the next one overwrites.
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.write_bytes(content)
    temporary.chmod(0o644)
    os.replace(temporary, path)
