"""Skip logic by `airflow dags test`: the whole DAG in one process, no scheduler."""

import json
import subprocess
import sys
from pathlib import Path

SERVING = ["deploy auth", "deploy serve", "smoke"]
CHECKS_ONLY = ["check ingest", "check train", "gate", "check predict", *SERVING]
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


def test_first_everything_runs_then_all_is_skipped_then_force_runs_all_again(scratch):
    result, calls = dags_test(scratch)
    assert result.returncode == 0, result.stdout[-4000:]
    assert [call["name"] for call in calls] == EVERYTHING

    result, calls = dags_test(scratch)
    assert result.returncode == 0, result.stdout[-4000:]
    assert [call["name"] for call in calls] == CHECKS_ONLY

    result, calls = dags_test(scratch, force=True, text_epochs=3)
    assert result.returncode == 0, result.stdout[-4000:]
    assert [call["name"] for call in calls] == ["params set", *EVERYTHING]
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
    assert [call["name"] for call in calls] == [*expected, *SERVING]


def test_prediction_in_shards_runs_each_part_and_then_their_merge(scratch):
    result, calls = dags_test(scratch, prediction_shards=3)
    assert result.returncode == 0, result.stdout[-4000:]
    made = [call for call in calls if call["name"] == "predict"]
    parts = [["predict", "--shard", f"{number}/3"] for number in (1, 2, 3)]
    assert sorted(call["arguments"] for call in made[:-1]) == parts
    assert made[-1]["arguments"] == ["predict", "--merge", "3"]
    assert [call["name"] for call in calls][-4:] == ["version predict", *SERVING]

    result, calls = dags_test(scratch, prediction_shards=3)
    assert result.returncode == 0, result.stdout[-4000:]
    assert [call["name"] for call in calls] == CHECKS_ONLY
