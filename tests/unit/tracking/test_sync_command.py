"""Exit codes of `product-classifier sync-runs`, without a server."""

import socket
import time

import pytest
import typer
from typer.testing import CliRunner

from product_classifier.commands import tracking
from product_classifier.core.errors import ExitCode, NothingToDo, TrackingError
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.record import RunRecord


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
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    records = []
    for _ in range(5):
        with RunRecord.start(workspace.runs) as record:
            records.append(record)
    started = time.monotonic()
    result = CliRunner().invoke(app, ["sync-runs"])
    assert time.monotonic() - started < 25
    assert isinstance(result.exception, TrackingError)
    assert result.exception.exit_code == ExitCode.FAULT
    assert all(f"kept      {record.run_id}" in result.stdout for record in records)
