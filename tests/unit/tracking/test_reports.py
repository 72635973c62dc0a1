"""A report on a model, added to the record of the training that made it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from product_classifier.core.files import read_json
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.ledger import Ledger, is_uploaded
from product_classifier.tracking.record import RunRecord
from product_classifier.tracking.reports import attach_report

MakeBundle = Callable[..., Path]
NOWHERE = Settings(_env_file=None, mlflow_tracking_uri="http://127.0.0.1:1")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def bundle(workspace: Workspace, make_bundle: MakeBundle) -> Path:
    return make_bundle(workspace.candidate)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text("first")
    return path


def finished_run(workspace: Workspace, bundle: Path) -> RunRecord:
    with RunRecord.start(workspace.runs, tags={"source": "airflow"}) as run:
        run.log_artifact(bundle, "bundle")
    Ledger(tracking_uri="http://127.0.0.1:1", state="uploaded", mlflow_run_id="m").save(run.folder)
    return run


def content_id(bundle: Path) -> str:
    return str(read_json(bundle / "manifest.json")["content_id"])


def test_a_record_that_cannot_be_added_to_is_a_warning(
    workspace: Workspace, bundle: Path, report: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = finished_run(workspace, bundle)
    manifest = run.artifacts / "bundle" / "manifest.json"
    manifest.unlink()
    manifest.write_text("{")
    assert attach_report(workspace, NOWHERE, content_id(bundle), [report], "drift", {}) is False
    assert "can't be added to" in caplog.text


def test_the_newest_run_of_that_bundle_keeps_it_until_the_server_is_back(
    workspace: Workspace, bundle: Path, report: Path
) -> None:
    older, newer = finished_run(workspace, bundle), finished_run(workspace, bundle)
    told = attach_report(
        workspace, NOWHERE, content_id(bundle), [report], "drift/batch", {"drift.batch.products": 7}
    )
    assert told is False
    assert newer.tags == {"source": "airflow", "drift.batch.products": "7"}
    assert newer.artifact_files()["drift/batch/report.html"].read_text() == "first"
    assert not is_uploaded(newer.folder)
    assert is_uploaded(older.folder)
    assert older.tags == {"source": "airflow"}


def test_a_later_report_replaces_the_earlier_one(
    workspace: Workspace, bundle: Path, report: Path
) -> None:
    run = finished_run(workspace, bundle)
    for content, products in (("first", 7), ("second", 8)):
        report.write_text(content)
        tags = {"drift.batch.products": products}
        attach_report(workspace, NOWHERE, content_id(bundle), [report], "drift/batch", tags)
    assert run.artifact_files()["drift/batch/report.html"].read_text() == "second"
    assert run.tags["drift.batch.products"] == "8"


def test_without_a_record_and_a_server_it_only_warns(
    workspace: Workspace, report: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert attach_report(workspace, NOWHERE, "0" * 64, [report], "drift/batch", {}) is False
    assert "MLflow does not have the report" in caplog.text
