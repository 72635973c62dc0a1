"""A drift report in a real MLflow server: at the run that made the bundle, whoever knows of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from product_classifier.core.files import read_json
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.record import RunRecord
from product_classifier.tracking.reports import attach_report
from product_classifier.tracking.server import connect
from product_classifier.tracking.upload import upload_record

pytestmark = pytest.mark.usefixtures("patient")

MakeBundle = Callable[..., Path]


@pytest.fixture
def settings(mlflow_uri: str, request: pytest.FixtureRequest) -> Settings:
    name = f"report {request.node.name}"
    return Settings(_env_file=None, mlflow_tracking_uri=mlflow_uri, mlflow_experiment_name=name)


def found(settings: Settings, run_id: str, folder: Path) -> tuple[dict[str, Any], str]:
    with connect(settings) as server:
        path = server.client.download_artifacts(run_id, "drift/batch/report.html", str(folder))
        return dict(server.client.get_run(run_id).data.tags), Path(path).read_text()


@pytest.mark.parametrize("has_record", [True, False], ids=["record is here", "bundle alone"])
def test_the_run_gets_the_report_and_its_figures(
    settings: Settings, make_bundle: MakeBundle, tmp_path: Path, has_record: bool
) -> None:
    trained, here = Workspace(tmp_path / "trained"), Workspace(tmp_path / "here")
    bundle = make_bundle(trained.candidate)
    with RunRecord.start(trained.runs) as run:
        run.log_artifact(bundle, "bundle")
    run_id = upload_record(run, settings)
    content_id = str(read_json(bundle / "manifest.json")["content_id"])
    report = tmp_path / "report.html"
    for content in ("first", "second"):
        report.write_text(content)
        tags = {"drift.batch.features": f"{content} text_length"}
        workspace = trained if has_record else here
        assert attach_report(workspace, settings, content_id, [report], "drift/batch", tags)
        (tmp_path / content).mkdir()
        known, shown = found(settings, run_id, tmp_path / content)
        assert shown == content
        assert known["drift.batch.features"] == f"{content} text_length"


def test_a_server_without_that_run_is_not_told(settings: Settings, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("first")
    workspace = Workspace(tmp_path)
    assert not attach_report(workspace, settings, "0" * 64, [report], "drift/batch", {})
