"""What real runs tell Prometheus: ends of tasks and runs, through retries, skips and kills; and Airflow's StatsD."""

import json
import os
import re
import signal
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from common import metrics
from live_airflow import DAG, parent_of, until
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
TRAIN = "training_stage.run"
COUNTED_SECONDS = 600  # on a busy machine; else the DAG processor takes a second or two


@pytest.fixture(scope="module", autouse=True)
def _earlier_runs_are_counted(airflow):
    """Runs of other files are counted some time after their end, in turn, and must not count as these tests'."""
    airflow.scratch.reset()
    airflow.mark_unchanged()
    run_id, state = airflow.run()
    assert state == "success"
    run = airflow.api("GET", f"dags/{DAG}/dagRuns/{run_id}")
    end = datetime.fromisoformat(run["end_date"]).timestamp()

    def counted():
        return figures(airflow).get((metrics.RUN_SUCCESS_AT, DAG), 0) >= end - 0.001

    until(counted, "the last run before these tests to be counted", COUNTED_SECONDS)


@pytest.fixture
def live(airflow):
    airflow.scratch.reset()
    return airflow


def figures(live):
    """Reads what the exporter would."""
    path = live.scratch.metrics / f"{DAG}.prom"
    if not path.exists():
        return {}
    families = text_string_to_metric_families(path.read_text())
    samples = [sample for family in families for sample in family.samples]
    return {
        (s.name, *(s.labels[label] for label in metrics.METRICS[s.name][0])): s.value
        for s in samples
    }


class Difference:
    """How often tasks and runs have ended since it was made."""

    def __init__(self, live):
        self.live = live
        self.before = figures(live)

    def _of(self, name, *labels):
        now = figures(self.live)
        found = {
            k[-1]: v - self.before.get(k, 0) for k, v in now.items() if k[:-1] == (name, *labels)
        }
        return {state: int(count) for state, count in found.items() if count}

    def of_task(self, task):
        return self._of(metrics.TASK_RUNS, DAG, task)

    def of_runs(self):
        return self._of(metrics.RUNS, DAG)

    def until_run_is(self, state):
        until(lambda: self.of_runs() == {state: 1}, f"the run to count as {state}", COUNTED_SECONDS)


def wait_for_hanging(live, count):
    return until(
        lambda: len(live.hanging()) >= count and live.hanging()[count - 1], "train to hang"
    )


def test_a_run_that_succeeds_after_a_retry_leaves_no_failure(live, statsd):
    change = Difference(live)
    live.control(train={"exit": 1, "times": 2})
    run_id, state = live.run()
    assert state == "success"
    change.until_run_is("success")
    assert change.of_task(TRAIN) == {"success": 1}
    assert change.of_task("data_stage.configure") == {"skipped": 1}
    assert change.of_task("prediction_stage.merge") == {"skipped": 1}

    now, task = figures(live), live.task(run_id, TRAIN)
    assert now[metrics.RUN_SUCCEEDED, DAG] == 1
    assert now[metrics.TASK_DURATION, DAG, TRAIN] == pytest.approx(task["duration"], abs=1)
    # That of the whole run, two tries that failed included.
    assert now[metrics.RUN_DURATION, DAG] > now[metrics.TASK_DURATION, DAG, TRAIN] + 2
    assert now[metrics.RUN_SUCCESS_AT, DAG] > now[metrics.TASK_SUCCESS_AT, DAG, TRAIN]
    # What has not failed has a count to begin from; runs of other tests may have raised it.
    smoke, runs = (metrics.TASK_RUNS, DAG, "serving_stage.smoke"), (metrics.RUNS, DAG)
    for failures in ((*smoke, "failed"), (*runs, "failed")):
        assert now[failures] == change.before.get(failures, 0)


def test_bad_input_counts_once_as_failed_and_what_did_not_run_not_at_all(live):
    change = Difference(live)
    succeeded = figures(live).get((metrics.RUN_SUCCESS_AT, DAG))
    live.control(train={"exit": 2, "message": "row 7: price is missing"})
    _, state = live.run()
    assert state == "failed"
    change.until_run_is("failed")
    assert change.of_task(TRAIN) == {"failed": 1}
    assert change.of_task("training_stage.gate") == {}
    assert figures(live)[metrics.RUN_SUCCEEDED, DAG] == 0
    assert figures(live)[metrics.RUN_DELIVERED, DAG] == 0
    assert figures(live).get((metrics.RUN_SUCCESS_AT, DAG)) == succeeded


def test_a_run_that_lacks_its_report_alone_has_delivered(live):
    change = Difference(live)
    live.control(**{"drift-report": {"exit": 2, "message": "the batch was scored by nobody"}})
    _, state = live.run()
    assert state == "failed"
    change.until_run_is("failed")
    assert change.of_task("prediction_stage.drift") == {"failed": 1}
    now = figures(live)
    assert (now[metrics.RUN_SUCCEEDED, DAG], now[metrics.RUN_DELIVERED, DAG]) == (0, 1)
    assert (
        now[metrics.RUN_SUCCESS_AT, DAG] >= now[metrics.TASK_SUCCESS_AT, DAG, "serving_stage.smoke"]
    )


def test_each_shard_that_fails_for_good_counts(live):
    change = Difference(live)
    live.control(predict={"exit": 2})
    _, state = live.run(prediction_shards=3)
    assert state == "failed"
    change.until_run_is("failed")
    assert change.of_task("prediction_stage.run") == {"failed": 3}


def test_a_task_killed_in_each_try_counts_once_when_its_run_ends(live):
    change = Difference(live)
    live.control(train={"hang": True})
    run_id = live.trigger()
    for attempt in (1, 2, 3):
        guard = parent_of(wait_for_hanging(live, attempt)[0])
        assert change.of_task(TRAIN) == {}
        os.kill(parent_of(guard), signal.SIGKILL)
    assert live.finish(run_id) == "failed"
    change.until_run_is("failed")
    assert change.of_task(TRAIN) == {"failed": 1}


def test_a_task_marked_failed_counts_when_its_run_ends(live):
    change = Difference(live)
    live.control(train={"hang": True})
    run_id = live.trigger()
    wait_for_hanging(live, 1)
    live.set_state(run_id, TRAIN, "failed")
    assert live.finish(run_id) == "failed"
    change.until_run_is("failed")
    assert change.of_task(TRAIN) == {"failed": 1}


def test_metrics_that_can_not_be_written_fail_no_task(live):
    folder = live.scratch.metrics
    kept = folder.with_name("metrics kept")
    folder.rename(kept)
    folder.write_text("in the way")
    try:
        live.mark_unchanged()
        run_id, state = live.run()
        assert state == "success"
        assert "were not written" in live.log(run_id, "serving_stage.smoke")
    finally:
        folder.unlink()
        kept.rename(folder)


def mapped(pattern):
    return re.compile(re.escape(pattern).replace(r"\*", "[^.:]+") + ":")


def test_airflow_sends_every_name_that_the_mapping_takes(live, statsd):
    _, lines = statsd
    rules = yaml.safe_load((ROOT / "monitoring" / "statsd" / "mapping.yml").read_text())["mappings"]
    letters = {"counter": "|c", "gauge": "|g"}
    wanted = {
        r["match"]: letters[r["match_metric_type"]] for r in rules if r.get("action") != "drop"
    }

    def missing():
        return {
            match
            for match, letter in wanted.items()
            if not any(mapped(match).match(line) and line.endswith(letter) for line in set(lines))
        }

    until(lambda: not missing(), f"all of them: {json.dumps(sorted(missing()))}", 90)
    finishes = [line for line in set(lines) if line.startswith("airflow.ti.finish.")]
    assert any(
        line.startswith("airflow.ti.finish.ml_pipeline.training_stage__run.") for line in finishes
    )
