import stat

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime.compose import Compose
from product_classifier.runtime.compose_values import compose_values, profiles, stage_user

TOKEN = {"dagshub_token": SecretStr("t" * 40), "dagshub_repository": "somebody/catalogue"}


def with_values(settings, **values):
    return settings.model_copy(update={"image_tag": "abc", **values})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["airflow", "tracking", "storage", "monitoring"]),
        ({"monitoring": "off"}, ["airflow", "tracking", "storage"]),
        (TOKEN, ["airflow", "monitoring"]),
        (
            {"mlflow_tracking_uri": "https://mlflow.example.org"},
            ["airflow", "storage", "monitoring"],
        ),
        ({"dvc_remote_url": "s3://ours/product"}, ["airflow", "tracking", "monitoring"]),
    ],
    ids=["nothing set", "no monitoring", "DagsHub", "another MLflow", "another remote"],
)
def test_only_what_is_not_elsewhere_is_started_here(settings, values, expected):
    assert profiles(with_values(settings, **values)) == expected


def test_with_dagshub_no_local_address_is_left(layout, settings):
    values = compose_values(layout, with_values(settings, **TOKEN))
    local = {name for name, value in values.items() if name.startswith("STACK_") and value}
    assert local == set()
    assert {"STACK_S3_ACCESS_KEY", "STACK_S3_SECRET_KEY"} <= set(values)


def test_the_stacks_own_store_takes_its_keys_from_the_generated_ones(layout, settings):
    values = compose_values(layout, with_values(settings))
    assert values["STACK_DVC_REMOTE_URL"] == "s3://dvc"
    assert "STACK_S3_ACCESS_KEY" not in values


@pytest.mark.parametrize("name", ["aws_access_key_id", "dvc_s3_endpoint_url"])
def test_keys_of_a_store_that_is_not_named_are_refused(layout, settings, name):
    with pytest.raises(ConfigurationError, match=f"{name.upper()} is set, but DVC_REMOTE_URL"):
        compose_values(layout, with_values(settings, **{name: "somebody's"}))


def test_stages_work_as_the_owner_of_the_checkout(layout, settings):
    owner = layout.root.stat()
    assert stage_user(settings, layout.root) == f"{owner.st_uid}:{owner.st_gid}"
    chosen = with_values(settings, airflow_uid=4711)
    assert stage_user(chosen, layout.root) == f"4711:{owner.st_gid}"
    chosen = with_values(settings, airflow_uid=4711, stage_user="12:34")
    assert stage_user(chosen, layout.root) == "12:34"


def test_what_the_environment_sets_is_left_to_it(layout, settings, monkeypatch):
    monkeypatch.setenv("NETWORK_NAME", "mine")
    assert "NETWORK_NAME" not in compose_values(layout, with_values(settings))


def test_the_values_are_kept_for_later_commands(layout, settings):
    compose = Compose(layout, "a-project", ["airflow"])
    values = compose_values(layout, with_values(settings))
    compose.write_values(values)
    assert dotenv_values(compose.values_file) == values  # spaces and % of the path too
    assert stat.S_IMODE(compose.values_file.stat().st_mode) == 0o600
    written = compose.values_file.stat().st_mtime_ns
    compose.write_values(values)
    assert compose.values_file.stat().st_mtime_ns == written
    assert f"--env-file={compose.values_file}" in compose.command("up")


def test_changed_rules_make_a_new_prometheus_and_nothing_else(layout, settings):
    rules = layout.root / "monitoring" / "prometheus" / "rules"
    rules.mkdir(parents=True)
    before = compose_values(layout, with_values(settings))
    (rules.parent / "tests.yml").write_text("no rule\n")
    assert compose_values(layout, with_values(settings)) == before
    (rules / "mine.yml").write_text("groups: []\n")
    after = compose_values(layout, with_values(settings))
    assert {name for name in after if after[name] != before[name]} == {"PROMETHEUS_DIGEST"}


def test_a_changed_configuration_makes_a_new_gateway_and_nothing_else(layout, settings):
    folder = layout.root / "containers" / "gateway"
    folder.mkdir(parents=True)
    before = compose_values(layout, with_values(settings))
    (folder / "haproxy.cfg").write_text("global\n")
    after = compose_values(layout, with_values(settings))
    assert {name for name in after if after[name] != before[name]} == {"GATEWAY_DIGEST"}
