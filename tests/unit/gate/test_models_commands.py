import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from product_classifier.commands import gate, models
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.releases import current_champion, point_champion, publish_release
from product_classifier.core.workspace import Workspace
from product_classifier.gate.gate import GateRefused

MakeBundle = Callable[..., Path]


@pytest.fixture
def app(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.chdir(workspace.root)
    # Nothing listens there: the commands must do their work without MLflow.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (workspace.root / "params.yaml").write_text("gate: {min_accuracy: 0.6}\n")
    app = typer.Typer()
    models.register(app)
    gate.register(app)
    return app


@pytest.fixture
def two(workspace: Workspace, make_bundle: MakeBundle) -> list[str]:
    ids = []
    for name in ("old", "new"):
        release = publish_release(workspace, make_bundle(workspace.models / name, name))
        ids.append(point_champion(workspace, release.release_id, name).release_id)
    return ids


def test_list_says_that_there_is_none(app: typer.Typer) -> None:
    assert "No model was published yet." in CliRunner().invoke(app, ["models", "list"]).stdout


def test_list_marks_the_champion(app: typer.Typer, two: list[str]) -> None:
    lines = CliRunner().invoke(app, ["models", "list"]).stdout.splitlines()
    assert lines[0].split()[:2] == ["champion", "release"]
    starred = [line for line in lines if line.startswith("*")]
    assert len(starred) == 1
    assert two[1] in starred[0]
    assert "0.8800" in starred[0]


def test_list_as_json_is_json_alone(app: typer.Typer, two: list[str]) -> None:
    rows = json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)
    assert {row["release"]: row["champion"] for row in rows} == {two[0]: False, two[1]: True}


def test_history_lists_the_moves(app: typer.Typer, two: list[str]) -> None:
    result = CliRunner().invoke(app, ["models", "list", "--history", "--json"])
    assert [move["to"] for move in json.loads(result.stdout)] == two


def test_rollback_goes_back_and_exports_again(
    app: typer.Typer, two: list[str], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPPER_PATH", "legacy/mapper.json")
    result = CliRunner().invoke(app, ["rollback"])
    assert result.exit_code == 0, result.stdout
    assert f"Champion: {two[0]}" in result.stdout
    champion = current_champion(workspace)
    assert champion is not None
    copy = workspace.root / "legacy" / "mapper.json"
    assert copy.read_bytes() == (champion.path / "mapper.json").read_bytes()


def test_rollback_with_nothing_to_go_back_to_is_bad_input(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["rollback"])
    assert isinstance(result.exception, ConfigurationError)


def test_gate_without_recording_needs_no_dvc(
    app: typer.Typer, workspace: Workspace, make_bundle: MakeBundle
) -> None:
    make_bundle(workspace.candidate)
    result = CliRunner().invoke(app, ["gate", "--no-record"])
    assert result.exit_code == 0, result.exception
    assert "Gate: published." in result.stdout


def test_gate_reads_its_floors_from_params(
    app: typer.Typer, workspace: Workspace, make_bundle: MakeBundle
) -> None:
    make_bundle(workspace.candidate)
    (workspace.root / "params.yaml").write_text("gate: {min_accuracy: 0.95}\n")
    result = CliRunner().invoke(app, ["gate", "--no-record"])
    assert isinstance(result.exception, GateRefused)
    assert current_champion(workspace) is None
