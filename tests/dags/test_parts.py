"""The parts of the DAG's code on their own: parameters, environment, log lines, failure line."""

import json
import logging
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from common.callbacks import log_failure
from common.decisions import skip_unless_needed
from common.environment import process_environment, settings_environment
from common.operators import event_text, parse_event
from common.params import assignments
from common.shards import shard_commands

UNCHANGED = {"changed": False, "reason": "same", "clear_number": 0}
CHANGED = {"changed": True, "reason": "new rows", "clear_number": 0}


def context(decision, *, generation=0, max_tries=2):
    task = SimpleNamespace(retries=2)
    ti = SimpleNamespace(max_tries=max_tries, task=task, xcom_pull=lambda task_ids: decision)
    return {"ti": ti, "dag_run": SimpleNamespace(clear_number=generation)}


def test_changed_runs():
    assert skip_unless_needed(context(CHANGED), "check") == "new rows"


@pytest.mark.parametrize(
    ("generation", "max_tries"),
    [(0, 2), (1, 2), (0, 3)],
    ids=["first time", "something else was cleared", "cleared together with its check"],
)
def test_unchanged_is_skipped(generation, max_tries):
    decision = UNCHANGED | {"clear_number": generation if max_tries > 2 else 0}
    with pytest.raises(AirflowSkipException, match="same"):
        skip_unless_needed(context(decision, generation=generation, max_tries=max_tries), "check")


def test_unchanged_but_cleared_itself_runs():
    assert "cleared" in skip_unless_needed(context(UNCHANGED, generation=1, max_tries=3), "check")


def test_a_missing_decision_is_a_fault():
    with pytest.raises(AirflowException, match="left no decision"):
        skip_unless_needed(context(None), "training_stage.check")


def test_only_params_filled_in_become_arguments():
    given = {"text_epochs": 5, "branches": "reuse", "seed": None, "target_precision": 0.9}
    assert assignments(given) == [
        "train.text.epochs=5",
        'train.branches="reuse"',
        "train.thresholds.target_precision=0.9",
    ]
    assert assignments({"force": True, "data_source": "sample"}) == []


def test_a_single_shard_is_the_plain_command_and_more_have_their_numbers():
    assert shard_commands("predict", 1) == [["predict"]]
    assert shard_commands("predict", 2) == [
        ["predict", "--shard", "1/2"],
        ["predict", "--shard", "2/2"],
    ]


def test_a_stage_gets_settings_and_nothing_of_airflows_own():
    machine = {"PATH": "/bin", "LC_ALL": "C", "https_proxy": "http://proxy"}
    settings = {"DATA_SOURCE": "rakuten", "DAGSHUB_TOKEN": "token"}
    airflow = {
        "AIRFLOW__API_AUTH__JWT_SECRET": "x",
        "AIRFLOW_HOME": "/x",
        "AIRFLOW_ADMIN_PASSWORD": "x",
    }
    given = process_environment(machine | settings | airflow | {"SHELL_HISTORY": "x"})
    assert given.items() >= (machine | settings).items()
    assert not set(airflow) & set(given)
    assert "SHELL_HISTORY" not in given


def test_a_container_gets_no_path_of_this_machine():
    assert "PATH" not in settings_environment({"PATH": "/bin", "LOG_LEVEL": "DEBUG"})


def test_json_lines_keep_level_message_and_what_else_they_carry():
    event = parse_event(
        '{"level": "WARNING", "message": "2 photos missing", "count": 2, "stage": "ingest"}'
    )
    assert event["level"] == "WARNING"
    assert event_text(event) == "2 photos missing (count=2)"


@pytest.mark.parametrize("line", ["plain text", "[1, 2]", '{"no": "message"}', "{broken"])
def test_other_lines_pass_as_they_are(line):
    assert event_text(parse_event(line)) == line


def test_a_failure_is_one_json_line_with_what_to_do(caplog):
    ti = SimpleNamespace(
        dag_id="ml_pipeline",
        run_id="r",
        task_id="training_stage.version",
        try_number=3,
        log_url="u",
    )
    with caplog.at_level(logging.ERROR):
        log_failure({"ti": ti, "exception": AirflowException("remote\naway")})
    (record,) = caplog.records
    event = json.loads(record.getMessage())
    assert "\n" not in record.getMessage()
    assert event["event"] == "task_failed"
    assert event["reason"] == "remote\naway"
    assert "remote" in event["triage"]
