"""PIPELINE_SCHEDULE: when the DAG runs by itself."""

import ast
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
from common.schedule import PRESETS, VARIABLE, pipeline_schedule

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "airflow" / "dags"


@pytest.mark.parametrize("given", ["", "  "])
def test_without_one_the_pipeline_runs_only_when_it_is_triggered(monkeypatch, given):
    monkeypatch.setenv(VARIABLE, given)
    assert pipeline_schedule() is None


@pytest.mark.parametrize(
    ("given", "expression"), [("@daily", "0 0 * * *"), (" 0 5 * * 1 ", "0 5 * * 1")]
)
def test_airflow_takes_it_as_it_is_set_in_utc(monkeypatch, given, expression):
    monkeypatch.setenv(VARIABLE, given)
    bag = DagBag(str(DAGS))
    assert bag.import_errors == {}
    dag = bag.dags["ml_pipeline"]
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    # As the scheduler reads it, in whose process the schedule is kept.
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert stored.timetable.summary == expression
    assert stored.timetable.periodic


@pytest.mark.parametrize("given", ["daily", "@once", "61 * * * *", "0 5 * *", "0 0 31 2 *"])
def test_one_that_can_not_be_used_is_named_where_dag_files_are_read(monkeypatch, given):
    monkeypatch.setenv(VARIABLE, given)
    (error,) = DagBag(str(DAGS)).import_errors.values()
    assert "PIPELINE_SCHEDULE: expected a cron expression" in error
    assert repr(given) in error


def test_both_sides_know_the_same_presets():
    tree = ast.parse((ROOT / "src" / "product_classifier" / "core" / "schedule.py").read_text())
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "PRESETS"
    ]
    assert ast.literal_eval(value) == PRESETS
