"""What auth and serve are told as containers is what they are told as processes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from product_classifier.core.settings import MonitoringSettings, Settings
from product_classifier.runtime import api_services

CONTRACT = Path(__file__).resolve().parents[3] / "airflow" / "dags" / "common" / "environment.py"


@pytest.fixture(scope="module")
def contract() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dag_environment", CONTRACT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(fields: set[str]) -> set[str]:
    return {name.upper() for name in fields if not name.endswith("_logger_path")}


def test_both_runtimes_tell_a_service_the_same_settings(contract: ModuleType) -> None:
    assert contract.SERVICE_SETTINGS["auth"] == names(api_services._AUTH)
    # serve checks what auth signs: with HS256 it needs the same key.
    assert contract.SERVICE_SETTINGS["serve"] == names(api_services._SERVE) | {"SECRET_KEY"}
    assert names(api_services._REMOTE) == contract.REMOTE_SETTINGS


def test_every_secret_is_kept_from_those_who_do_not_read_it(contract: ModuleType) -> None:
    # Those of the monitoring never come near a DAG.
    others = {*MonitoringSettings.model_fields, "airflow_admin_password"}
    secrets = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if "Secret" in str(field.annotation) and name not in others
    }
    assert secrets == contract.SERVICE_SECRETS | contract.STORE_SECRETS
    everything = dict.fromkeys(contract.SETTINGS, "value")
    assert not secrets & set(contract.stage_environment("run", everything)) - contract.STORE_SECRETS
    assert secrets & set(contract.stage_environment("smoke", everything)) == {"SMOKE_PASSWORD"}
    told = {name: contract.service_environment(name, everything) for name in ("auth", "serve")}
    assert not contract.STORE_SECRETS & set(told["auth"])
    assert secrets & set(told["serve"]) == {"AIRFLOW_TRIGGER_PASSWORD", "REDIS_URL"}
    assert "SECRET_KEY" in contract.service_environment(
        "serve", everything | {"ALGORITHM": "HS256"}
    )
    remote = contract.service_environment("serve", everything | {"BUNDLE_SOURCE": "dvc"})
    assert set(remote) >= contract.REMOTE_SETTINGS
