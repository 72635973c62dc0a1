"""Exit codes of `product-classifier sync-runs`, without a server."""

import pytest
import typer
from typer.testing import CliRunner

from product_classifier.commands import tracking
from product_classifier.core.errors import ExitCode, NothingToDo, TrackingError
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.tracking import upload
from product_classifier.tracking.record import RunRecord
from unused_ports import free_port


@pytest.fixture
def app(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.chdir(workspace.root)
    app = typer.Typer()
    app.callback()(lambda: None)
    tracking.register(app)
    return app


def test_nothing_to_upload_ends_with_99(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["sync-runs"])
    assert isinstance(result.exception, NothingToDo)
    assert result.exception.exit_code == ExitCode.NOTHING_TO_DO


def test_server_away_is_asked_once_and_every_run_is_named(
    app: typer.Typer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    records = []
    for _ in range(5):
        with RunRecord.start(workspace.runs) as record:
            records.append(record)
    asked = []

    def upload_record(record: RunRecord, settings: Settings) -> str:
        asked.append(record.run_id)
        return really_upload(record, settings)

    really_upload = upload.upload_record
    monkeypatch.setattr(upload, "upload_record", upload_record)
    result = CliRunner().invoke(app, ["sync-runs"])
    assert len(asked) == 1
    assert isinstance(result.exception, TrackingError)
    assert result.exception.exit_code == ExitCode.FAULT
    assert all(f"kept      {record.run_id}" in result.stdout for record in records)
