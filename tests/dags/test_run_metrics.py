"""The text file that callbacks keep: many writers, torn files, tasks that are gone; and how docs/metrics.md has it."""

import fcntl
import multiprocessing
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from common import metrics
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
END = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "met rics"
    monkeypatch.setenv(metrics.FOLDER_VARIABLE, str(path))
    return path


def context(task="a", *, tasks=("a", "b"), run_id="r1", map_index=-1, attempt=1, **more):
    ti = SimpleNamespace(
        dag_id="pipe",
        task_id=task,
        run_id=run_id,
        map_index=map_index,
        try_number=attempt,
        start_date=END - timedelta(seconds=90),
        end_date=END,
    )
    leaves = [SimpleNamespace(task_id=name) for name in tasks]
    dag = SimpleNamespace(dag_id="pipe", task_ids=list(tasks), leaves=leaves)
    start = END - timedelta(hours=1)
    run = SimpleNamespace(start_date=start, run_after=start, end_date=END)
    return {"ti": ti, "dag": dag, "dag_run": run, **more}


def read(folder):
    text = (folder / "pipe.prom").read_text()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {
        (s.name, *(s.labels[label] for label in metrics.METRICS[s.name][0])): s.value
        for s in samples
    }


def test_a_success_is_counted_with_its_time_and_duration(folder):
    metrics.count_success(context())
    found = read(folder)
    assert found[metrics.TASK_RUNS, "pipe", "a", "success"] == 1
    assert found[metrics.TASK_SUCCESS_AT, "pipe", "a"] == END.timestamp()
    assert found[metrics.TASK_DURATION, "pipe", "a"] == 90


def test_every_task_and_the_run_have_counts_from_the_first_end_on(folder):
    metrics.count_skip(context())
    found = read(folder)
    counted = {key: value for key, value in found.items() if value}
    assert counted == {(metrics.TASK_RUNS, "pipe", "a", "skipped"): 1}
    assert len(found) == 2 * len(metrics.TASK_STATES) + len(metrics.RUN_STATES)


def test_a_failure_keeps_when_the_task_last_succeeded(folder):
    metrics.count_success(context())
    metrics.count_failure(context(run_id="r2"))
    found = read(folder)
    assert found[metrics.TASK_SUCCESS_AT, "pipe", "a"] == END.timestamp()
    assert found[metrics.TASK_RUNS, "pipe", "a", "failed"] == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["task first", "run first"])
def test_a_failure_that_task_and_run_both_tell_counts_once(folder, order):
    told = (metrics.count_failure, metrics.count_run_failure)
    for number in order:
        told[number](context(reason="task_failure"))
    found = read(folder)
    assert found[metrics.TASK_RUNS, "pipe", "a", "failed"] == 1
    assert found[metrics.RUNS, "pipe", "failed"] == 1
    # Cleared and failed again, it is another failure.
    metrics.count_failure(context(attempt=2))
    assert read(folder)[metrics.TASK_RUNS, "pipe", "a", "failed"] == 2


def test_a_failure_that_is_told_twice_counts_once(folder):
    for _ in range(2):  # as the DAG processor does for a task whose worker was lost
        metrics.count_failure(context())
    assert read(folder)[metrics.TASK_RUNS, "pipe", "a", "failed"] == 1


def test_a_run_that_is_stuck_names_no_task_that_failed(folder):
    metrics.count_run_failure(context(reason="all_tasks_deadlocked"))
    assert read(folder)[metrics.TASK_RUNS, "pipe", "a", "failed"] == 0


def test_a_run_without_any_task_to_name_counts(folder):
    metrics.count_run_success({"dag": context()["dag"], "run_id": "r1"})
    found = read(folder)
    assert found[metrics.RUNS, "pipe", "success"] == 1
    assert (metrics.RUN_DURATION, "pipe") not in found


def test_runs_leave_when_they_succeeded_and_how_long_they_took(folder):
    metrics.count_run_success(context())
    metrics.count_run_failure(context(reason="task_failure"))
    found = read(folder)
    assert found[metrics.RUN_SUCCEEDED, "pipe"] == 0
    assert found[metrics.RUN_DELIVERED, "pipe"] == 0
    assert found[metrics.RUN_SUCCESS_AT, "pipe"] == END.timestamp()
    assert found[metrics.RUN_DURATION, "pipe"] == 3600


SMOKE, DRIFT = "serving_stage.smoke", "prediction_stage.drift"
BRANCHES = (SMOKE, DRIFT)


def test_a_run_that_lacks_a_report_alone_has_delivered(folder):
    metrics.count_success(context(SMOKE, tasks=BRANCHES))
    metrics.count_failure(context(DRIFT, tasks=BRANCHES))
    metrics.count_run_failure(context(DRIFT, tasks=BRANCHES, reason="task_failure"))
    found = read(folder)
    assert found[metrics.RUNS, "pipe", "failed"] == 1
    assert found[metrics.RUN_SUCCEEDED, "pipe"] == 0
    assert found[metrics.RUN_DELIVERED, "pipe"] == 1
    assert found[metrics.RUN_SUCCESS_AT, "pipe"] == END.timestamp()


@pytest.mark.parametrize(
    ("succeeded", "days"),
    [(None, 0), (DRIFT, 0), (SMOKE, 1)],
    ids=["nothing", "the report", "an earlier run"],
)
def test_a_run_that_did_not_get_to_its_end_has_not_delivered(folder, succeeded, days):
    if succeeded:
        before = context(succeeded, tasks=BRANCHES)
        before["ti"].end_date -= timedelta(days=days)
        metrics.count_success(before)
    metrics.count_run_failure(context(DRIFT, tasks=BRANCHES, reason="task_failure"))
    found = read(folder)
    assert found[metrics.RUN_DELIVERED, "pipe"] == 0
    assert (metrics.RUN_SUCCESS_AT, "pipe") not in found


def test_a_failed_run_of_which_nothing_is_known_has_not_delivered(folder):
    for dag in (context(tasks=BRANCHES)["dag"], context(tasks=(DRIFT,))["dag"]):
        metrics.count_run_failure({"dag": dag, "run_id": "r1"})
        assert read(folder)[metrics.RUN_DELIVERED, "pipe"] == 0
    metrics.count_run_failure(context(DRIFT, tasks=(DRIFT,), reason="task_failure"))
    assert read(folder)[metrics.RUN_DELIVERED, "pipe"] == 0


def test_reports_are_tasks_of_the_dag():
    text = (ROOT / "airflow" / "dags" / "common" / "stage.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in text for name in metrics.REPORTS)


def test_a_task_that_the_dag_has_no_more_is_forgotten(folder):
    metrics.count_success(context("old", tasks=("old", "a")))
    metrics.count_success(context("a", tasks=("a",)))
    assert not any("old" in key for key in read(folder))


def _end_often(number):
    for attempt in range(20):
        metrics.count_success(context())
        metrics.count_failure(context("b", map_index=number, attempt=attempt))


def test_no_end_is_lost_among_writers_at_the_same_time(folder):
    with multiprocessing.get_context("fork").Pool(6) as pool:
        pool.map(_end_often, range(6))
    found = read(folder)
    assert found[metrics.TASK_RUNS, "pipe", "a", "success"] == 120
    assert found[metrics.TASK_RUNS, "pipe", "b", "failed"] == 120
    assert [path.name for path in folder.glob("*.prom")] == ["pipe.prom"]


def test_what_a_killed_writer_left_is_overwritten(folder):
    metrics.count_success(context())
    (folder / ".pipe.prom.tmp").write_text("half a li")
    metrics.count_success(context())
    assert read(folder)[metrics.TASK_RUNS, "pipe", "a", "success"] == 2
    assert not (folder / ".pipe.prom.tmp").exists()


def test_a_file_that_can_not_be_read_is_begun_anew(folder, caplog):
    folder.mkdir()
    (folder / "pipe.prom").write_text("product_classifier_task_runs_total{dag=")
    metrics.count_success(context())
    assert read(folder)[metrics.TASK_RUNS, "pipe", "a", "success"] == 1
    assert "begin anew" in caplog.text


def test_nothing_that_goes_wrong_is_raised_or_held_up(folder, caplog, monkeypatch):
    monkeypatch.setattr(metrics, "LOCK_SECONDS", 0.1)
    folder.mkdir()
    with (folder / ".pipe.prom.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        metrics.count_success(context())
    assert "is held" in caplog.text
    metrics.count_success({"ti": context()["ti"]})  # no DAG
    assert "KeyError" in caplog.text
    monkeypatch.setenv(metrics.FOLDER_VARIABLE, "/proc/no/such")
    metrics.count_run_success(context())
    assert "FileNotFoundError" in caplog.text


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv(metrics.FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    metrics.count_success(context())
    assert os.listdir(tmp_path) == []


def test_the_file_can_be_read_by_an_exporter_of_another_user(folder):
    metrics.count_success(context())
    assert (folder / "pipe.prom").stat().st_mode & 0o777 == 0o644


def test_docs_describe_exactly_these_metrics(folder):
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(product_classifier_(?:task|pipeline)_\w+)` \| (\w+) \| ([^|]*)\|", text, re.M
    )
    documented = {name: (kind, tuple(labels.strip().split(", "))) for name, kind, labels in rows}
    ours = {
        name: ("counter" if name.endswith("_total") else "gauge", labels)
        for name, (labels, _) in metrics.METRICS.items()
    }
    limits = {"staleness_limit_seconds", "watched_since_timestamp_seconds"}
    others = {f"product_classifier_pipeline_{name}" for name in limits}
    assert {name: row for name, row in documented.items() if name not in others} == ours
    metrics.count_success(context())
    metrics.count_run_success(context())
    families = text_string_to_metric_families((folder / "pipe.prom").read_text())
    written = {f.name + ("_total" if f.type == "counter" else ""): f.type for f in families}
    assert written == {name: kind for name, (kind, _) in ours.items()}
