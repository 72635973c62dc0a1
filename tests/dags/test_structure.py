"""What the DAG is: tasks, edges, documentation, limits."""

import ast
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "airflow" / "dags"
EDGES = {
    "data_stage.configure": {"data_stage.check"},
    "data_stage.check": {"data_stage.run"},
    "data_stage.run": {"data_stage.version"},
    "data_stage.version": {"training_stage.check"},
    "training_stage.check": {"training_stage.run"},
    "training_stage.run": {"training_stage.version"},
    "training_stage.version": {"training_stage.gate"},
    "training_stage.gate": {"prediction_stage.check"},
    "prediction_stage.check": {"prediction_stage.shards"},
    "prediction_stage.shards": {"prediction_stage.run"},
    "prediction_stage.run": {"prediction_stage.merge", "prediction_stage.version"},
    "prediction_stage.merge": {"prediction_stage.version"},
    "prediction_stage.version": {"prediction_stage.drift", "serving_stage.deploy_auth"},
    "prediction_stage.drift": set(),
    "serving_stage.deploy_auth": {"serving_stage.deploy_serve"},
    "serving_stage.deploy_serve": {"serving_stage.smoke"},
    "serving_stage.smoke": set(),
}
FORCE = "{{ '--force' if params.force else '' }}"
COMMANDS = {
    "data_stage.configure": ["params", "set"],
    "data_stage.run": ["ingest"],
    "data_stage.version": ["version", "ingest"],
    "training_stage.run": ["train"],
    "training_stage.version": ["version", "train"],
    "training_stage.gate": ["gate", FORCE],
    "prediction_stage.merge": ["predict", "--merge", "{{ params.prediction_shards }}"],
    "prediction_stage.version": ["version", "predict"],
    "prediction_stage.drift": ["drift-report"],
    "serving_stage.deploy_auth": ["deploy", "auth"],
    "serving_stage.deploy_serve": ["deploy", "serve"],
    "serving_stage.smoke": ["smoke"],
}


# One task per shard, and the one that says how many; their commands are known at run time.
PLANNED = {"prediction_stage.shards", "prediction_stage.run"}


def stage_tasks(dag):
    return [task for task in dag.tasks if task.task_id not in PLANNED]


@pytest.fixture(scope="module")
def bag():
    return DagBag(str(DAGS))


@pytest.fixture(scope="module")
def dag(bag):
    return bag.dags["ml_pipeline"]


def test_the_folder_holds_one_dag_and_reads_without_errors(bag):
    assert bag.import_errors == {}
    assert list(bag.dags) == ["ml_pipeline"]


def test_tasks_and_edges_are_exactly_these(dag):
    assert {task.task_id: set(task.downstream_task_ids) for task in dag.tasks} == EDGES


def test_commands_are_exactly_these(dag):
    found = {task.task_id: task.command for task in stage_tasks(dag) if task.action != "check"}
    assert found == COMMANDS


def test_prediction_runs_are_mapped_over_the_planned_commands(dag):
    run = dag.get_task("prediction_stage.run")
    assert run.is_mapped
    assert [task.task_id for task, _ in run.expand_input.iter_references()] == [
        "prediction_stage.shards"
    ]
    expected = {"stage": "predict", "action": "run", "check_task_id": "prediction_stage.check"}
    assert run.partial_kwargs.items() >= expected.items()


@pytest.mark.parametrize("stage", ["ingest", "train", "predict"])
def test_each_check_passes_force_on(dag, stage):
    (check,) = [t for t in stage_tasks(dag) if t.action == "check" and t.stage == stage]
    assert check.command == ["check", stage, FORCE]


def test_it_starts_only_by_hand_one_run_at_a_time_from_a_fixed_date(dag):
    assert dag.schedule is None
    assert dag.max_active_runs == 1
    assert dag.start_date.isoformat() == "2026-01-01T00:00:00+00:00"
    assert dag.catchup is False


def test_it_is_documented_and_tagged(dag):
    for heading in (
        "When to run it by hand",
        "Parameters",
        "What a retry does",
        "Clear task",
        "Triage",
    ):
        assert f"## {heading}" in dag.doc_md
    assert {"product-classifier", "training"} <= dag.tags
    assert dag.description


def test_the_manual_names_only_params_that_exist(dag):
    for example in re.findall(r"\{\"[^}]*\}", dag.doc_md):
        assert set(ast.literal_eval(example.replace("true", "True"))) <= set(dag.params)


def test_every_task_has_an_owner_retries_a_timeout_and_a_failure_callback(dag):
    for task in dag.tasks:
        assert task.owner == "product-classifier", task.task_id
        assert task.retries == 2
        assert task.retry_delay == timedelta(seconds=20)
        assert task.retry_exponential_backoff == 2
        assert timedelta(minutes=5) <= task.execution_timeout <= timedelta(hours=36)
        assert task.has_on_failure_callback


def test_every_end_of_a_task_and_of_a_run_is_counted(dag):
    for task in dag.tasks:
        assert task.has_on_failure_callback, task.task_id
        assert task.has_on_success_callback, task.task_id
        assert task.has_on_skipped_callback, task.task_id
        assert not task.has_on_retry_callback, task.task_id  # it has not ended
    assert dag.has_on_success_callback
    assert dag.has_on_failure_callback


def test_tasks_that_take_the_lock_of_dvc_share_a_pool_of_one_slot(dag):
    pooled = {task.task_id for task in dag.tasks if task.pool == "dvc"}
    assert pooled == {
        t.task_id for t in stage_tasks(dag) if t.action in ("check", "version", "gate")
    }


def test_the_drift_report_has_the_library_and_keeps_nobody_waiting(dag):
    drift = dag.get_task("prediction_stage.drift")
    assert drift.stage == "train"  # whose image has it
    assert drift.downstream_task_ids == set()
    assert drift.pool == "default_pool"


def test_only_check_gate_and_serving_go_on_after_a_skip(dag):
    rules = {task.task_id: task.trigger_rule.value for task in dag.tasks}
    after_skip = {name for name, rule in rules.items() if rule == "none_failed"}
    going_on = ("check", "gate", "deploy", "smoke")
    expected = {t.task_id for t in stage_tasks(dag) if t.action in going_on}
    assert after_skip == expected | {"prediction_stage.shards"}
    # A single shard has no merge: that one is skipped, and its run still counts.
    assert rules.pop("prediction_stage.version") == "none_failed_min_one_success"
    assert set(rules.values()) == {"none_failed", "all_success"}


def test_each_output_is_an_asset_of_the_task_that_records_it(dag):
    outlets = {task.task_id: [a.uri for a in task.outlets] for task in dag.tasks if task.outlets}
    assert outlets == {
        "data_stage.version": ["dvc://data/raw"],
        "training_stage.version": ["dvc://models/candidate"],
        "training_stage.gate": ["dvc://models/champion.json"],
        "prediction_stage.version": ["dvc://data/predictions"],
    }


def test_every_param_is_typed_and_described_and_numbers_are_bounded(dag):
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description, name
        types = param.schema["type"]
        assert types, name
        if "integer" in types or "number" in types:
            assert {"minimum", "maximum"} <= set(param.schema), name


def test_nothing_given_is_a_valid_run(dag):
    dag.params.validate()
    values = dag.params.dump()
    assert values.pop("force") is False
    assert values.pop("prediction_shards") == 1
    assert set(values.values()) == {None}


def test_every_param_is_a_key_of_params_yaml_with_bounds_that_it_accepts(dag):
    code = """
import json, sys
sys.path[:0] = [sys.argv[1] + "/src"]
from product_classifier.core.params import parse_params
for key, values in json.loads(sys.argv[2]).items():
    for value in values:
        content = value
        for part in reversed(key.split(".")):
            content = {part: content}
        parse_params(content)
"""
    import json

    from common.params import PARAMS_YAML_KEYS

    values = {}
    for name, key in PARAMS_YAML_KEYS.items():
        schema = dag.params.get_param(name).schema
        bounds = [schema[bound] for bound in ("minimum", "maximum") if bound in schema]
        values[key] = bounds or [v for v in schema.get("enum", ["auto"]) if v is not None]
    assert set(dag.params) == {"data_source", "force", "prediction_shards", *PARAMS_YAML_KEYS}
    command = [sys.executable, "-c", code, str(ROOT), json.dumps(values)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_dag_file_is_wiring_of_at_most_120_lines():
    assert len((DAGS / "ml_pipeline.py").read_text().splitlines()) <= 120


def test_dag_code_never_imports_the_package():
    for path in DAGS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "product_classifier" for name in names), path


def test_every_task_has_advice_for_its_failure(dag):
    from common.callbacks import _TRIAGE

    assert {task.task_id.rpartition(".")[2] for task in dag.tasks} == set(_TRIAGE)


def test_no_secret_is_part_of_what_a_task_shows(dag):
    for task in stage_tasks(dag):
        assert task.template_fields == ("command",)
        assert not any("PASSWORD" in part or "SECRET" in part for part in task.command)


def test_an_unknown_runtime_is_refused_with_the_ones_that_there_are(monkeypatch):
    monkeypatch.setitem(os.environ, "PIPELINE_RUNTIME", "podman")
    bag = DagBag(str(DAGS))
    (error,) = bag.import_errors.values()
    assert "Expected one of ['docker', 'process']" in error
    assert "PIPELINE_RUNTIME='podman'" in error


def test_with_containers_it_is_the_same_dag(monkeypatch):
    monkeypatch.setitem(os.environ, "PIPELINE_RUNTIME", "docker")
    bag = DagBag(str(DAGS))
    assert bag.import_errors == {}
    dag = bag.dags["ml_pipeline"]
    assert {task.task_id: set(task.downstream_task_ids) for task in dag.tasks} == EDGES
    found = {task.task_id: task.command for task in stage_tasks(dag) if task.action != "check"}
    assert found == COMMANDS
    kinds = {task.task_id: task.task_type for task in dag.tasks}
    assert kinds["training_stage.run"] == kinds["prediction_stage.run"] == "StageDockerOperator"
    assert kinds["serving_stage.deploy_serve"] == "ServiceOperator"
    queues = {task.task_id: task.queue for task in dag.tasks}
    assert queues["training_stage.run"] == queues["training_stage.check"] == "train"
    assert {queues["prediction_stage.run"], queues["prediction_stage.shards"]} == {"predict"}
    offered = (DAGS.parents[1] / "docker-compose.yml").read_text()
    assert "AIRFLOW_WORKER_QUEUES:-default,ingest,train,predict,auth,serve}" in offered
    assert set(queues.values()) == {"ingest", "train", "predict", "auth", "serve"}
