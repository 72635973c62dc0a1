"""Real runs through the REST API: retries, bad input, stopping, "Clear task"."""

import os
import signal

import pytest
from live_airflow import alive, parent_of, until

SERVING = ["deploy auth", "deploy serve", "smoke"]
TASKS_AFTER_TRAINING_CHECK = [
    "train",
    "version train",
    "gate",
    "check predict",
    "predict",
    "version predict",
    *SERVING,
]


def in_turn(live):
    """The commands in their order, and how often the report, which nothing waits for, was made beside them."""
    names = live.names()
    return [name for name in names if name != "drift-report"], names.count("drift-report")


@pytest.fixture
def live(airflow):
    airflow.scratch.reset()
    return airflow


@pytest.fixture
def unchanged_run(live):
    """A run in which nothing had changed, so that every stage was skipped."""
    live.mark_unchanged()
    run_id, state = live.run()
    assert state == "success"
    live.forget_calls()
    return run_id


def test_a_run_hands_parameters_source_and_run_id_to_its_stages(live):
    run_id, state = live.run(data_source="/data/mine", sample_products=300, branches="train")
    assert state == "success"
    calls = live.calls()
    assert calls[0]["arguments"] == [
        *("params", "set", "ingest.sample.products=300", 'train.branches="train"')
    ]
    for call in calls:
        assert call["environment"]["DATA_SOURCE"] == "/data/mine"
        assert call["environment"]["AIRFLOW_RUN_ID"] == run_id
        assert call["leaked"] == []
    assert "train works (products=3)" in live.log(run_id, "training_stage.run")


def test_a_param_out_of_bounds_is_refused_at_once(live):
    with pytest.raises(AssertionError, match="400"):
        live.trigger(text_epochs=0)
    assert live.names() == []


def test_a_fault_is_tried_again(live):
    live.control(train={"exit": 1, "times": 2})
    run_id, state = live.run()
    assert state == "success"
    assert live.names().count("train") == 3
    assert live.task(run_id, "training_stage.run")["try_number"] == 3


def test_bad_input_is_not_tried_again_and_says_why(live):
    live.control(train={"exit": 2, "message": "row 7: price is missing"})
    run_id, state = live.run()
    assert state == "failed"
    assert live.names().count("train") == 1
    states = live.states(run_id)
    assert states["training_stage.run"] == "failed"
    assert states["training_stage.gate"] == "upstream_failed"
    assert states["prediction_stage.check"] == "upstream_failed"
    log = live.log(run_id, "training_stage.run")
    assert "row 7: price is missing" in log
    assert "task_failed" in log


def test_unchanged_stages_are_skipped(live, unchanged_run):
    states = live.states(unchanged_run)
    succeeded = {name for name, state in states.items() if state == "success"}
    serving = {f"serving_stage.{name}" for name in ("deploy_auth", "deploy_serve", "smoke")}
    checks = {"data_stage.check", "training_stage.check", "prediction_stage.check"}
    assert succeeded == checks | serving | {"prediction_stage.shards"}
    assert {state for name, state in states.items() if name not in succeeded} == {"skipped"}


def test_clearing_run_reruns_that_stage_and_those_whose_inputs_changed(live, unchanged_run):
    (live.workspace / "done" / "gate").unlink()  # what a new candidate does
    live.clear(unchanged_run, "training_stage.run")
    assert live.finish(unchanged_run) == "success"
    assert in_turn(live) == (TASKS_AFTER_TRAINING_CHECK, 1)


def test_clearing_run_whose_output_comes_out_the_same_skips_what_follows(live, unchanged_run):
    live.control(same_output=True)
    live.clear(unchanged_run, "training_stage.run")
    assert live.finish(unchanged_run) == "success"
    assert live.names() == ["train", "version train", "gate", "check predict", *SERVING]


def test_clearing_check_evaluates_again_and_skips_again(live, unchanged_run):
    live.clear(unchanged_run, "training_stage.check")
    assert live.finish(unchanged_run) == "success"
    assert live.names() == ["check train", "gate", "check predict", *SERVING]
    # And a clear of `run` after that is a newer wish than the check's word.
    live.control(same_output=True)
    live.forget_calls()
    live.clear(unchanged_run, "training_stage.run", downstream=False)
    assert live.finish(unchanged_run) == "success"
    assert live.names() == ["train"]


def wait_for_hanging(live, count=1):
    return until(
        lambda: len(live.hanging()) >= count and live.hanging()[count - 1], "train to hang"
    )


def test_marking_a_running_task_failed_ends_its_whole_process_group(live):
    live.control(train={"hang": True})
    run_id = live.trigger()
    pids = wait_for_hanging(live)
    live.set_state(run_id, "training_stage.run", "failed")
    until(lambda: not any(alive(pid) for pid in pids), "the process group to end", 120)
    assert live.finish(run_id) == "failed"
    assert (live.workspace / "signals.jsonl").read_text().startswith('"SIGTERM"')


def test_clearing_a_running_task_ends_its_processes_and_runs_it_again(live):
    live.control(train={"hang": True, "times": 1})
    run_id = live.trigger()
    pids = wait_for_hanging(live)
    live.clear(run_id, "training_stage.run")
    assert live.finish(run_id) == "success"
    assert not any(alive(pid) for pid in pids)
    assert live.names().count("train") == 2


def test_sigkill_of_the_task_leaves_no_process(live):
    live.control(train={"hang": True, "times": 1})
    run_id = live.trigger()
    pids = wait_for_hanging(live)
    guard = parent_of(pids[0])
    os.kill(parent_of(guard), signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids), "the process group to end", 120)
    assert live.finish(run_id) == "success"
    assert live.names().count("train") == 2


def test_shards_are_tried_again_on_their_own_before_they_are_merged(live):
    live.control(predict={"exit": 1, "times": 2})
    run_id, state = live.run(prediction_shards=2)
    assert state == "success"
    made = [call for call in live.calls() if call["name"] == "predict"]
    assert len(made) == 5  # two shards, two tries that failed, and the merge
    assert made[-1]["arguments"] == ["predict", "--merge", "2"]
    assert {call["environment"]["AIRFLOW_MAP_INDEX"] for call in made[:-1]} == {"0", "1"}


def test_clearing_a_skipped_prediction_runs_it_again(live, unchanged_run):
    live.clear(unchanged_run, "prediction_stage.run")
    assert live.finish(unchanged_run) == "success"
    assert in_turn(live) == (["predict", "version predict", *SERVING], 1)
    assert live.calls()[0]["arguments"] == ["predict"]


def test_a_report_that_can_not_be_made_fails_the_run_and_holds_no_service_up(live):
    live.control(**{"drift-report": {"exit": 2, "message": "the batch was scored by nobody"}})
    run_id, state = live.run()
    assert state == "failed"
    states = live.states(run_id)
    assert states["prediction_stage.drift"] == "failed"
    assert states["serving_stage.smoke"] == "success"
    assert "Nothing else is affected" in live.log(run_id, "prediction_stage.drift")
