"""Skip logic by `airflow dags test`: the whole DAG in one process, no scheduler."""

import json
import subprocess
import sys
from pathlib import Path

SERVING = ["deploy auth", "deploy serve", "smoke"]
CHECKS_ONLY = ["check ingest", "check train", "gate", "check predict", *SERVING]
REPORT = "drift-report"  # nothing waits for it: its place among the others is nobody's promise
EVERYTHING = [
    *("check ingest", "ingest", "version ingest"),
    *("check train", "train", "version train", "gate"),
    *("check predict", "predict", "version predict"),
    *SERVING,
]


def dags_test(scratch, **params):
    (scratch.workspace / "calls.jsonl").unlink(missing_ok=True)
    command = [str(Path(sys.executable).parent / "airflow"), "dags", "test", "ml_pipeline"]
    result = subprocess.run(
        [*command, "-c", json.dumps(params)],
        env=scratch.environment,
        cwd=scratch.home,
        capture_output=True,
        text=True,
    )
    lines = (scratch.workspace / "calls.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def in_turn(calls):
    return [call["name"] for call in calls if call["name"] != REPORT]


def reports(calls):
    return [call["name"] for call in calls].count(REPORT)


def test_first_everything_runs_then_all_is_skipped_then_force_runs_all_again(scratch):
    result, calls = dags_test(scratch)
    assert result.returncode == 0, result.stdout[-4000:]
    assert in_turn(calls) == EVERYTHING
    assert reports(calls) == 1

    result, calls = dags_test(scratch)
    assert result.returncode == 0, result.stdout[-4000:]
    assert in_turn(calls) == CHECKS_ONLY
    assert reports(calls) == 0

    result, calls = dags_test(scratch, force=True, text_epochs=3)
    assert result.returncode == 0, result.stdout[-4000:]
    assert in_turn(calls) == ["params set", *EVERYTHING]
    assert calls[0]["arguments"] == ["params", "set", "train.text.epochs=3"]


def test_a_changed_stage_in_the_middle_leaves_the_earlier_ones_skipped(scratch):
    done = scratch.workspace / "done"
    done.mkdir()
    for name in ("ingest", "gate", "predict"):
        (done / name).touch()
    (scratch.workspace / "control.json").write_text('{"same_output": true}')
    result, calls = dags_test(scratch)
    assert result.returncode == 0, result.stdout[-4000:]
    expected = ["check ingest", "check train", "train", "version train", "gate", "check predict"]
    assert in_turn(calls) == [*expected, *SERVING]


def test_prediction_in_shards_runs_each_part_and_then_their_merge(scratch):
    result, calls = dags_test(scratch, prediction_shards=3)
    assert result.returncode == 0, result.stdout[-4000:]
    made = [call for call in calls if call["name"] == "predict"]
    parts = [["predict", "--shard", f"{number}/3"] for number in (1, 2, 3)]
    assert sorted(call["arguments"] for call in made[:-1]) == parts
    assert made[-1]["arguments"] == ["predict", "--merge", "3"]
    assert in_turn(calls)[-4:] == ["version predict", *SERVING]

    result, calls = dags_test(scratch, prediction_shards=3)
    assert result.returncode == 0, result.stdout[-4000:]
    assert in_turn(calls) == CHECKS_ONLY
