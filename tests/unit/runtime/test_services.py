import importlib.util
from pathlib import Path

import pytest

from product_classifier.core.settings import ContainerSettings, MonitoringSettings, Settings
from product_classifier.runtime import services
from product_classifier.runtime.services import (
    MLFLOW,
    airflow_environment,
    core_services,
    stage_workspace,
)

DAG_ENVIRONMENT = Path(__file__).parents[3] / "airflow" / "dags" / "common" / "environment.py"


@pytest.fixture(scope="module")
def contract():
    """The DAG's side of the environment contract; standard library only, so it loads here."""
    spec = importlib.util.spec_from_file_location("dag_environment", DAG_ENVIRONMENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_dag_hands_to_the_stages_what_they_may_read(contract):
    """All but Airflow's password, how containers are started, and who is told of alerts."""
    others = {*ContainerSettings.model_fields, *MonitoringSettings.model_fields}
    settings = set(Settings.model_fields) - others - {"airflow_admin_password"}
    assert set(contract.SETTINGS) == {name.upper() for name in settings}


def test_both_sides_pass_the_same_variables_of_the_machine(contract):
    for name in ("MACHINE", "MACHINE_PREFIXES", "PROXIES"):
        assert getattr(contract, name) == getattr(services, name)


def test_an_unchanged_service_keeps_its_fingerprint(layout, settings):
    first = [service.fingerprint() for service in core_services(layout, settings)]
    assert first == [service.fingerprint() for service in core_services(layout, settings)]


def test_a_changed_port_changes_the_services_that_use_it(layout, settings):
    before = {s.name: s.fingerprint() for s in core_services(layout, settings)}
    other = settings.model_copy(update={"mlflow_port": 5099})
    after = {s.name: s.fingerprint() for s in core_services(layout, other)}
    assert {name for name in before if before[name] != after[name]} == {MLFLOW}


def test_changed_dag_code_restarts_the_dag_processor_only(layout, settings):
    before = {s.name: s.fingerprint() for s in core_services(layout, settings)}
    (layout.dags / "ml_pipeline.py").write_text("# new\n")
    after = {s.name: s.fingerprint() for s in core_services(layout, settings)}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"airflow-dag-processor"}


def test_a_changed_schedule_restarts_the_dag_processor_only(layout, settings):
    before = {s.name: s.fingerprint() for s in core_services(layout, settings)}
    daily = settings.model_copy(update={"pipeline_schedule": "@daily"})
    services = {service.name: service for service in core_services(layout, daily)}
    changed = {name for name in before if before[name] != services[name].fingerprint()}
    assert changed == {"airflow-dag-processor"}
    assert services["airflow-dag-processor"].environment["PIPELINE_SCHEDULE"] == "@daily"


def test_airflow_sends_its_metrics_to_this_machine_and_leaves_those_of_runs_in_the_workspace(
    layout, settings, tmp_path
):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    chosen = settings.model_copy(update={"project_host_path": tmp_path, "statsd_port": 9876})
    environment = airflow_environment(layout, chosen)
    assert environment["PIPELINE_METRICS_PATH"] == f"{tmp_path}/.state/metrics/airflow"
    sent = {k: v for k, v in environment.items() if k.startswith("AIRFLOW__METRICS__")}
    assert sent == {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": "9876",
        "AIRFLOW__METRICS__STATSD_PREFIX": "airflow",
        "AIRFLOW__METRICS__LEGACY_NAMES_ON": "True",
    }
    compose = (Path(__file__).parents[3] / "docker-compose.yml").read_text(encoding="utf-8")
    assert all(f"\n  {name}: " in compose for name in (*sent, "PIPELINE_METRICS_PATH"))


def test_the_shells_own_variables_restart_nothing(layout, settings, monkeypatch):
    before = [s.fingerprint() for s in core_services(layout, settings)]
    monkeypatch.setenv("PATH", "/somewhere/else")
    assert before == [s.fingerprint() for s in core_services(layout, settings)]


def test_a_users_own_airflow_configuration_does_not_leak_in(layout, settings, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW_HOME", "/home/me/airflow")
    environment = airflow_environment(layout, settings)
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert environment["AIRFLOW_HOME"] == str(layout.airflow_home)


def test_exported_settings_reach_the_stages_and_the_password_does_not(
    layout, settings, monkeypatch
):
    monkeypatch.setenv("DATA_SOURCE", "rakuten")
    monkeypatch.setenv("AIRFLOW_ADMIN_PASSWORD", "secret")
    environment = airflow_environment(layout, settings)
    assert environment["DATA_SOURCE"] == "rakuten"
    assert "AIRFLOW_ADMIN_PASSWORD" not in environment


def test_every_service_listens_on_this_machine_only(layout, settings):
    environment = airflow_environment(layout, settings)
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    (mlflow,) = [s for s in core_services(layout, settings) if s.name == MLFLOW]
    assert mlflow.command[mlflow.command.index("--host") + 1] == "127.0.0.1"


def test_a_tasks_token_outlives_the_longest_training(layout, settings):
    environment = airflow_environment(layout, settings)
    assert int(environment["AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME"]) > 36 * 3600


def test_no_local_mlflow_where_another_server_is_set(layout, settings):
    remote = settings.model_copy(update={"mlflow_tracking_uri": "https://mlflow.example.org"})
    assert MLFLOW not in {service.name for service in core_services(layout, remote)}


def test_no_secret_shows_in_a_services_text(layout, settings):
    environment = airflow_environment(layout, settings)
    text = repr(core_services(layout, settings))
    assert environment["AIRFLOW__API_AUTH__JWT_SECRET"] not in text


def test_project_host_path_is_the_stages_workspace_where_it_is_a_checkout(
    layout, settings, tmp_path
):
    other = tmp_path / "other"
    other.mkdir()
    chosen = settings.model_copy(update={"project_host_path": other})
    assert stage_workspace(layout, chosen) == layout.root
    (other / "dvc.yaml").write_text("stages: {}\n")
    assert stage_workspace(layout, chosen) == other


def test_another_workspace_gets_the_settings_of_this_checkouts_env(layout, settings, tmp_path):
    layout.dotenv.write_text("DVC_REMOTE_URL=s3://mine\n")
    assert "DVC_REMOTE_URL" not in airflow_environment(layout, settings)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    chosen = settings.model_copy(update={"project_host_path": tmp_path})
    assert airflow_environment(layout, chosen)["DVC_REMOTE_URL"] == "s3://mine"
