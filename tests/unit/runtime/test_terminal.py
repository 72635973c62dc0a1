"""What the terminal shows: progress, failures, results, logs, status."""

import json

import pytest
from rich.console import Console

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.airflow_api import AirflowAPI
from product_classifier.runtime.follow import RunFollower
from product_classifier.runtime.results import print_results
from product_classifier.runtime.service_logs import choose_logs, follow_logs, read_logs
from product_classifier.runtime.status import format_seconds, print_status
from product_classifier.runtime.task_log import tail, task_log

TASK = {"task_id": "a.run", "state": "running", "try_number": 1, "map_index": -1}


@pytest.fixture
def console():
    return Console(record=True, width=120, force_terminal=False)


class RecordedRun:
    """Plays back what Airflow would say, one answer per poll."""

    def __init__(self, *states):
        self.states = list(states)
        self.now = {}

    def task_order(self):
        return ["a.run", "b.run"]

    def run(self, run_id):
        self.now = self.states.pop(0)
        ended = not self.states
        failed = "failed" in self.now.values()
        return {"state": ("failed" if failed else "success") if ended else "running"}

    def tasks(self, run_id):
        times = {"start_date": "2026-01-01T00:00:00Z", "end_date": "2026-01-01T00:00:05Z"}
        return {
            name: {"task_id": name, "state": state, "try_number": 1, **times}
            for name, state in self.now.items()
        }


def test_each_change_of_a_task_is_one_line(layout, console, monkeypatch):
    monkeypatch.setattr("product_classifier.runtime.follow.POLL_SECONDS", 0)
    api = RecordedRun(
        {"a.run": "running", "b.run": None},
        {"a.run": "running", "b.run": None},
        {"a.run": "success", "b.run": "skipped"},
    )
    assert RunFollower(api, layout, console, "r1").follow() == "success"
    lines = [line.split(" ", 1)[1] for line in console.export_text().splitlines()]
    assert lines == ["a.run: running", "a.run: success (5 s)", "b.run: skipped (5 s)"]


def test_a_terminal_gets_a_table_with_the_running_tasks_last_line(layout, monkeypatch):
    monkeypatch.setattr("product_classifier.runtime.follow.POLL_SECONDS", 0)
    console = Console(record=True, width=120, force_terminal=True)
    path = task_log(layout, "r1", TASK)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"event": "epoch 3 of 20"}) + "\n")
    follower = RunFollower(RecordedRun(), layout, console, "r1")
    console.print(follower._table(["a.run", "b.run"], {"a.run": TASK}))
    text = console.export_text()
    assert "epoch 3 of 20" in text
    assert "waiting" in text


def test_of_a_tasks_shards_the_one_that_needs_looking_at_speaks(layout, settings, monkeypatch):
    shards = [
        {**TASK, "state": state, "map_index": index, "try_number": 2}
        for index, state in enumerate(("success", "failed", "running"))
    ]
    api = AirflowAPI(settings)
    monkeypatch.setattr(api, "call", lambda *_, **__: {"task_instances": shards})
    found = api.tasks("r1")["a.run"]
    assert found["state"] == "failed"
    assert task_log(layout, "r1", found).parts[-2:] == ("map_index=1", "attempt=2.log")


def test_a_failed_tasks_log_is_shown(layout, console):
    path = task_log(layout, "r1", TASK)
    path.parent.mkdir(parents=True)
    lines = [{"event": "row 7: price is missing", "level": "error"}, {"event": "::group::Post"}]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    api = RecordedRun({})
    api.now = {"a.run": "failed", "b.run": "upstream_failed"}
    RunFollower(api, layout, console, "r1").explain_failure()
    text = console.export_text()
    assert "a.run failed after 1 tries" in text
    assert "row 7: price is missing" in text
    assert "::group::" not in text


def test_a_task_log_that_is_not_there_yet_is_empty(tmp_path):
    assert tail(tmp_path / "none.log", 5) == []


def test_a_task_log_gives_text_lines_and_error_details(tmp_path):
    path = tmp_path / "attempt=1.log"
    detail = {"event": "Task failed", "error_detail": [{"exc_type": "E", "exc_value": "why"}]}
    path.write_text("plain\n\n" + json.dumps(detail) + "\n")
    assert tail(path, 5) == ["plain", "Task failed\nE: why"]


def test_results_show_the_champions_metrics_and_the_predictions(tmp_path, console):
    workspace = Workspace(tmp_path)
    workspace.champion.mkdir(parents=True)
    metrics = {"fusion": {"accuracy": 0.91, "macro_f1": 0.9}, "tfidf": {"accuracy": 0.8}}
    manifest = {"content_id": "abc", "metrics": metrics}
    (workspace.champion / "manifest.json").write_text(json.dumps(manifest))
    workspace.predictions.mkdir(parents=True)
    (workspace.predictions / "predictions.json").write_text('{"0": 10, "1": 40}')
    print_results(console, workspace)
    text = console.export_text()
    assert "0.9100" in text
    assert "TF-IDF baseline" in text
    assert "image only" not in text
    assert "2 products" in text


def test_results_without_a_champion_say_so(tmp_path, console):
    print_results(console, Workspace(tmp_path))
    assert console.export_text() == "There is no champion yet.\n"


def test_logs_of_all_services_carry_their_names(layout):
    (layout.logs / "one.log").write_text("a\nb\n")
    (layout.logs / "two.log").write_text("c\n")
    assert list(read_logs(choose_logs(layout, None), 1)) == ["one | b", "two | c"]
    assert list(read_logs(choose_logs(layout, "one"), 5)) == ["a", "b"]


def test_an_unknown_service_is_refused_with_those_that_there_are(layout):
    (layout.logs / "one.log").write_text("")
    with pytest.raises(ConfigurationError, match=r"one of: one\. Received: 'three'"):
        choose_logs(layout, "three")


def test_followed_logs_give_new_lines_also_after_a_rotation(layout):
    path = layout.logs / "one.log"
    path.write_text("old " * 50 + "\n")
    lines = follow_logs({"one": path})
    with path.open("a") as file:
        file.write("new\n")
    assert next(lines) == "new"
    path.write_text("first\nsecond\n")
    assert [next(lines), next(lines)] == ["first", "second"]
    lines.close()


def test_status_says_so_where_nothing_runs(layout, settings, console):
    assert print_status(layout, settings, console) is False
    assert "make start" in console.export_text()


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.4, "5 s"), (600, "10 min"), (3600 * 3 + 300, "3 h 5 min")]
)
def test_durations_read_well(seconds, text):
    assert format_seconds(seconds) == text
