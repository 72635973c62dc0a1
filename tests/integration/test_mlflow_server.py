"""The tracking against real MLflow servers: open, with basic auth, gone, dying and half-capable."""

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from product_classifier.core.errors import TrackingError
from product_classifier.core.files import read_json
from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.tracking import server as tracking_server
from product_classifier.tracking import upload
from product_classifier.tracking.download import fetch_bundle
from product_classifier.tracking.latest import set_latest
from product_classifier.tracking.ledger import is_uploaded, read_ledger
from product_classifier.tracking.lineage import attach_lineage
from product_classifier.tracking.record import RunRecord
from product_classifier.tracking.registry import champion_alias_is_due, mark_champion
from product_classifier.tracking.server import connect
from product_classifier.tracking.upload import (
    RUN_ID_TAG,
    pending_records,
    sync_runs,
    upload_or_keep,
    upload_record,
)
from unused_ports import free_port

from .conftest import PASSWORD, USERNAME, MLflowServer, Proxy

# Four seconds are the aim; MLflow's own limits keep one waiting for more than 40.
LONGEST_ASKING_SECONDS = 30
ANSWER_SECONDS = tracking_server._ANSWER_SECONDS

pytestmark = pytest.mark.usefixtures("patient")

MakeBundle = Callable[..., Path]
ProxyTo = Callable[[str], Proxy]


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    """A name of its own for each test: the server is shared."""
    return f"test {request.node.name}"[:200]


@pytest.fixture
def settings(mlflow_uri: str, experiment: str) -> Settings:
    return make_settings(mlflow_uri, experiment)


def make_settings(uri: str, experiment: str, **values: Any) -> Settings:
    return Settings(
        _env_file=None, mlflow_tracking_uri=uri, mlflow_experiment_name=experiment, **values
    )


def find_runs(settings: Settings, query: str = "") -> list[Any]:
    with connect(settings) as server:
        found = server.client.get_experiment_by_name(settings.mlflow_experiment_name)
        return list(server.client.search_runs([found.experiment_id], query)) if found else []


def artifact_names(settings: Settings, run_id: str, folder: str | None = None) -> set[str]:
    with connect(settings) as server:
        names = set()
        for item in server.client.list_artifacts(run_id, folder):
            names |= artifact_names(settings, run_id, item.path) if item.is_dir else {item.path}
        return names


@pytest.fixture
def record(workspace: Workspace, make_bundle: MakeBundle, tmp_path: Path) -> RunRecord:
    """A finished training with everything that one has."""
    params = {
        "train": {"text": {"max_tokens": 64}, "image": {"weights": "auto"}},
        "long": "x" * 9000,
    }
    tags = {"source": "airflow", "version": "20261121", "model_type": "VGG16+LSTM"}
    with RunRecord.start(workspace.runs, tags=tags, params=params) as run:
        for epoch in range(300):
            run.log_metrics({"text/loss": 1 / (epoch + 1), "text/accuracy": 0.5}, step=epoch)
        run.log_metrics({"fusion.accuracy": 0.91, "undefined": float("nan")})
        plot = tmp_path / "confusion.png"
        plot.write_bytes(b"\x89PNG")
        run.log_artifact(plot, "plots")
        run.log_artifact(make_bundle(workspace.candidate), "bundle")
        for name in ("text_only", "image_only"):
            with run.child(name, {"model_type": name}) as child:
                child.log_metrics({"accuracy": 0.7})
    return run


def test_run_arrives_as_users_know_it(settings: Settings, record: RunRecord) -> None:
    run_id = upload_record(record, settings)
    [run] = find_runs(settings, f"tags.`{RUN_ID_TAG}` = '{record.run_id}'")
    assert run.info.run_id == run_id
    assert run.info.run_name == "Train_Concatenate_Model"
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (record.started_at_ms, record.ended_at_ms)
    assert run.data.tags["source"] == "airflow"
    assert run.data.tags["model_type"] == "VGG16+LSTM"
    assert run.data.params["train.text.max_tokens"] == "64"
    assert run.data.metrics["fusion.accuracy"] == 0.91


def test_long_parameter_is_cut_and_kept_whole_beside(settings: Settings, record: RunRecord) -> None:
    run_id = upload_record(record, settings)
    with connect(settings) as server:
        value = server.client.get_run(run_id).data.params["long"]
    assert value.endswith("[cut from 9000 characters]")
    assert "params.json" in artifact_names(settings, run_id)


def test_metrics_keep_step_time_and_number(settings: Settings, record: RunRecord) -> None:
    run_id = upload_record(record, settings)
    with connect(settings) as server:
        history = server.client.get_metric_history(run_id, "text/loss")
    expected = [(event.step, event.at_ms) for event in record.metrics()][:300]
    assert sorted((metric.step, metric.timestamp) for metric in history) == expected


def test_ablations_are_nested(settings: Settings, record: RunRecord) -> None:
    run_id = upload_record(record, settings)
    children = find_runs(settings, f"tags.mlflow.parentRunId = '{run_id}'")
    assert {run.info.run_name for run in children} == {"text_only", "image_only"}
    assert {run.info.status for run in children} == {"FINISHED"}


def test_uploading_again_adds_nothing(settings: Settings, record: RunRecord) -> None:
    run_id = upload_record(record, settings)
    assert upload_record(record, settings) == run_id
    assert len(find_runs(settings)) == 3
    with connect(settings) as server:
        assert len(server.client.get_metric_history(run_id, "text/loss")) == 300
        versions = server.client.search_model_versions(f"run_id = '{run_id}'")
    assert len(versions) == 1


def test_bundle_is_registered_as_candidate(settings: Settings, record: RunRecord) -> None:
    run_id = upload_record(record, settings)
    with connect(settings) as server:
        version = server.client.get_model_version_by_alias("ProductCodeClassifier", "candidate")
    assert version.run_id == run_id
    assert version.source.endswith("/artifacts/bundle")


def test_bundle_comes_back_byte_for_byte(
    settings: Settings, record: RunRecord, workspace: Workspace, tmp_path: Path
) -> None:
    upload_record(record, settings)
    fetched = fetch_bundle(record.run_id, tmp_path / "fetched", settings)
    assert fetched.is_complete
    for path in (p for p in workspace.candidate.rglob("*") if p.is_file()):
        twin = fetched.path / path.relative_to(workspace.candidate)
        assert twin.read_bytes() == path.read_bytes()


def test_light_upload_leaves_large_files_out_and_lists_them(
    settings: Settings,
    record: RunRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = (record.artifacts / "bundle" / "best_vgg16_model.keras").stat().st_size
    monkeypatch.setattr(upload, "LIGHT_MAX_BYTES", size - 1)
    run_id = upload_record(record, settings)
    names = artifact_names(settings, run_id)
    assert "bundle/best_vgg16_model.keras" not in names
    assert "left_out.json" in names
    fetched = fetch_bundle(run_id, tmp_path / "fetched", settings)
    assert "best_vgg16_model.keras" in fetched.missing


def test_full_upload_takes_large_files(
    mlflow_uri: str, experiment: str, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "LIGHT_MAX_BYTES", 10)
    settings = make_settings(mlflow_uri, experiment, mlflow_bundle="full")
    names = artifact_names(settings, upload_record(record, settings))
    assert "bundle/best_vgg16_model.keras" in names
    assert "left_out.json" not in names


def test_fetching_an_unknown_run_says_so(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="0000"):
        fetch_bundle("0000", tmp_path / "fetched", settings)


def test_lineage_reaches_a_run_that_is_uploaded_already(
    settings: Settings, record: RunRecord, workspace: Workspace
) -> None:
    upload_record(record, settings)
    set_latest(workspace, record.run_id, "c" * 64)
    lock = workspace.root / "dvc.lock"
    lock.write_text("schema: '2.0'\n")
    attach_lineage(workspace, {"git_commit": "abc", "git_dirty": True}, [lock], settings=settings)
    [run] = find_runs(settings, "tags.`lineage.git_commit` = 'abc'")
    assert run.data.tags["lineage.git_dirty"] == "true"
    assert run.info.end_time == record.ended_at_ms
    assert "lineage/dvc.lock" in artifact_names(settings, run.info.run_id)
    assert is_uploaded(record.folder)


def test_champion_alias_follows_the_champion(
    settings: Settings, record: RunRecord, workspace: Workspace
) -> None:
    run_id = upload_record(record, settings)
    release = publish_release(workspace, workspace.candidate)
    point_champion(workspace, release.release_id, "first")
    assert champion_alias_is_due(workspace)
    assert mark_champion(workspace, settings)
    assert not champion_alias_is_due(workspace)
    with connect(settings) as server:
        version = server.client.get_model_version_by_alias("ProductCodeClassifier", "champion")
    assert version.run_id == run_id


def test_champion_alias_waits_for_a_run_that_is_not_uploaded_yet(
    settings: Settings, record: RunRecord, workspace: Workspace
) -> None:
    release = publish_release(workspace, workspace.candidate)
    point_champion(workspace, release.release_id, "first")
    assert not mark_champion(workspace, settings)
    assert sync_runs(workspace, settings).uploaded == [record.run_id]
    assert mark_champion(workspace, settings)
    with connect(settings) as server:
        version = server.client.get_model_version_by_alias("ProductCodeClassifier", "champion")
    assert version.tags["content_id"] == release.content_id


# Basic auth


def test_basic_auth_takes_the_credentials_and_no_trace_of_them_is_left(
    mlflow_servers: dict[str, MLflowServer],
    experiment: str,
    record: RunRecord,
    workspace: Workspace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "product_classifier")
    server = mlflow_servers["basic-auth"]
    address = server.uri.replace("://", f"://{USERNAME}:{PASSWORD}@")
    with RunRecord.start(workspace.runs, tags={"remote": address}, params={"u": address}) as run:
        run.log_metrics({"accuracy": 0.9})
    settings = make_settings(
        server.uri, experiment, mlflow_tracking_username=USERNAME, mlflow_tracking_password=PASSWORD
    )
    assert sync_runs(workspace, settings).kept == {}
    runs = find_runs(settings)
    assert len(runs) == 4
    assert PASSWORD not in repr([run.to_dictionary() for run in runs])
    assert PASSWORD not in caplog.text
    assert not any(PASSWORD in p.read_text("latin-1") for p in run.folder.rglob("*") if p.is_file())
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_credentials_may_be_part_of_the_address(
    mlflow_servers: dict[str, MLflowServer], experiment: str, record: RunRecord
) -> None:
    address = mlflow_servers["basic-auth"].uri.replace("://", f"://{USERNAME}:{PASSWORD}@")
    upload_record(record, make_settings(address, experiment))
    ledger = read_ledger(record.folder)
    assert ledger is not None
    assert PASSWORD not in ledger.model_dump_json()


def test_wrong_password_keeps_the_run_and_is_not_shown(
    mlflow_servers: dict[str, MLflowServer],
    experiment: str,
    record: RunRecord,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = make_settings(
        mlflow_servers["basic-auth"].uri,
        experiment,
        mlflow_tracking_username=USERNAME,
        mlflow_tracking_password="a-wrong-password",
    )
    assert not upload_or_keep(record, settings)
    assert "401" in caplog.text
    assert "a-wrong-password" not in caplog.text


# Servers in trouble


@pytest.fixture
def _as_users_have_it(patient: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits that hold without a user's own; MLflow's client is imported, which may take long by itself."""
    find_runs(settings)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    monkeypatch.setattr(tracking_server, "_ANSWER_SECONDS", ANSWER_SECONDS)


@pytest.mark.usefixtures("_as_users_have_it")
def test_server_down_costs_seconds_and_sync_uploads_once_later(
    settings: Settings, experiment: str, record: RunRecord, workspace: Workspace
) -> None:
    started = time.monotonic()
    down = make_settings(f"http://127.0.0.1:{free_port()}", experiment)
    assert not upload_or_keep(record, down)
    assert time.monotonic() - started < LONGEST_ASKING_SECONDS
    assert [item.run_id for item in pending_records(workspace)] == [record.run_id]
    assert sync_runs(workspace, settings).uploaded == [record.run_id]
    assert sync_runs(workspace, settings).nothing_to_do
    assert len(find_runs(settings, f"tags.`{RUN_ID_TAG}` = '{record.run_id}'")) == 1


@pytest.mark.parametrize("requests", [2, 3, 6, 9, 13, 18, 24])
def test_server_dying_in_an_upload_leaves_no_duplicate(
    proxy_to: ProxyTo,
    mlflow_uri: str,
    experiment: str,
    record: RunRecord,
    workspace: Workspace,
    requests: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    proxy = proxy_to(mlflow_uri)
    settings = make_settings(proxy.uri, experiment)
    proxy.cut_after = requests
    assert not upload_or_keep(record, settings)
    assert not is_uploaded(record.folder)
    proxy.cut_after = None
    assert sync_runs(workspace, settings).uploaded == [record.run_id]
    runs = find_runs(settings)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 3
    [run] = [run for run in runs if run.data.tags[RUN_ID_TAG] == record.run_id]
    with connect(settings) as server:
        assert len(server.client.get_metric_history(run.info.run_id, "text/loss")) == 300
    assert set(record.artifact_files()) <= artifact_names(settings, run.info.run_id)


def test_answer_to_the_creation_of_a_run_lost_makes_no_second_run(
    proxy_to: ProxyTo, mlflow_uri: str, experiment: str, record: RunRecord
) -> None:
    settings = make_settings(mlflow_uri, experiment)
    run_id = upload_record(record, settings)
    (record.folder / "upload.json").unlink()
    assert upload_record(record, settings) == run_id


def test_server_without_registry_gets_tags(
    proxy_to: ProxyTo,
    mlflow_uri: str,
    experiment: str,
    record: RunRecord,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    proxy = proxy_to(mlflow_uri)
    proxy.answers = {
        "registered-models": 404,
        "model-versions": 404,
        "logged-models": 500,
        "log-model": 500,
    }
    settings = make_settings(proxy.uri, experiment)
    run_id = upload_record(record, settings)
    release = publish_release(workspace, workspace.candidate)
    point_champion(workspace, release.release_id, "first")
    assert mark_champion(workspace, settings)
    [run] = find_runs(settings, "tags.`alias.candidate` = 'true'")
    assert run.info.run_id == run_id
    assert run.data.tags["registered_model_name"] == "ProductCodeClassifier"
    assert run.data.tags["alias.champion"] == "true"
    assert not [path for path in proxy.seen if "log-model" in path or "logged-models" in path]


@pytest.mark.usefixtures("_as_users_have_it")
def test_server_that_never_answers_costs_seconds(experiment: str, record: RunRecord) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = make_settings(f"http://127.0.0.1:{silent.getsockname()[1]}", experiment)
        started = time.monotonic()
        assert not upload_or_keep(record, settings)
        assert time.monotonic() - started < LONGEST_ASKING_SECONDS


def test_upload_that_takes_too_long_is_broken_off_and_kept(
    mlflow_uri: str, experiment: str, record: RunRecord
) -> None:
    settings = make_settings(mlflow_uri, experiment, mlflow_upload_timeout_seconds=0.001)
    with pytest.raises(TrackingError, match="MLFLOW_UPLOAD_TIMEOUT_SECONDS"):
        upload_record(record, settings)
    assert not is_uploaded(record.folder)


def test_limits_that_the_user_has_set_stay(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with connect(settings):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_killed_training_arrives_as_killed(settings: Settings, workspace: Workspace) -> None:
    run = RunRecord.start(workspace.runs)
    run.log_metrics({"loss": 1.0}, step=0)
    os.close(run._lock or -1)  # what the kernel does to a killed process
    assert sync_runs(workspace, settings).uploaded == [run.run_id]
    [found] = find_runs(settings)
    assert found.info.status == "KILLED"
    assert read_json(run.folder / "run.json")["status"] == "KILLED"
