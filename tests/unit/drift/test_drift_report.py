"""The report on disk, in the metrics and at the model's run; and the command's refusals."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from drift_batches import NOWHERE
from made_observations import make_comparison, make_rows, publish_referenced
from prometheus_client import generate_latest
from typer.testing import CliRunner

from metrics_page import documented, exposed
from product_classifier.commands import drift as command
from product_classifier.core.errors import ConfigurationError, ExitCode, NothingToDo
from product_classifier.core.files import read_json, sha256_file, write_json_atomic
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, Workspace
from product_classifier.drift import report
from product_classifier.drift.report import batch_metrics, make_report
from product_classifier.tracking.record import RunRecord

MakeBundle = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture(autouse=True)
def _page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has tests of its own; drawing one takes seconds."""
    monkeypatch.setattr(report, "render_page", lambda one: f"<body>{one.verdict}</body>")


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None, mlflow_tracking_uri=NOWHERE)


def test_page_summary_metrics_and_the_run_say_the_same(
    workspace: Workspace, settings: Settings, make_bundle: MakeBundle
) -> None:
    bundle = make_bundle(workspace.candidate)
    publish_referenced(workspace, bundle)
    with RunRecord.start(workspace.runs) as run:
        run.log_artifact(bundle, "bundle")
    content_id = read_json(bundle / "manifest.json")["content_id"]
    rows = make_rows(300, seed=3, light=0.5)
    comparison = make_comparison(rows, content_id=content_id, population=9000)

    folder = make_report(workspace, settings, comparison)

    assert folder == workspace.reports / "drift" / "batch"
    assert (folder / "report.html").read_text() == "<body>Drift of brightness, sharpness.</body>"
    summary = read_json(folder / "summary.json")
    assert summary["drifted"] == ["brightness", "sharpness"]
    assert (summary["products"], summary["population"]) == (300, 9000)
    psi = comparison.figures.features["brightness"].psi
    assert summary["features"]["brightness"]["psi"] == psi
    metrics = (workspace.metrics / "drift.prom").read_text()
    assert f'product_classifier_batch_drift_psi{{feature="brightness"}} {psi!r}' in metrics
    assert "product_classifier_batch_drift_products 300.0" in metrics
    limit = summary["expected_accuracy_limit"]
    assert f"product_classifier_batch_expected_accuracy_limit_ratio {limit!r}" in metrics
    share = summary["missing"]["photo"]
    assert f'product_classifier_batch_drift_missing_ratio{{part="photo"}} {share!r}' in metrics
    kept = run.artifact_files()
    assert kept["drift/batch/report.html"].read_bytes() == (folder / "report.html").read_bytes()
    assert kept["drift/batch/summary.json"].is_file()
    assert run.tags["drift.batch.features"] == "brightness, sharpness"
    assert run.tags["drift.batch.products"] == "300"


def test_a_window_leaves_the_batch_and_its_metrics_alone(
    workspace: Workspace, settings: Settings
) -> None:
    make_report(workspace, settings, make_comparison(make_rows(60, seed=2)))
    before = (workspace.metrics / "drift.prom").read_bytes()
    window = make_comparison(make_rows(300, seed=3, light=0.5), kind="window")
    folder = make_report(workspace, settings, window)
    assert folder == workspace.reports / "drift" / "window"
    assert (workspace.metrics / "drift.prom").read_bytes() == before
    assert read_json(workspace.reports / "drift/batch/summary.json")["products"] == 60


def test_the_metrics_are_the_documented_ones() -> None:
    registry = batch_metrics(make_comparison(make_rows(60, seed=2)))
    found = exposed(generate_latest(registry).decode())
    prefix = "product_classifier_batch_"
    assert found == {one for one in documented("pipeline") if one.name.startswith(prefix)}
    assert len(found) == 9


@pytest.fixture
def app(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.chdir(workspace.root)
    monkeypatch.setattr(command.os, "nice", lambda _step: 0)  # it would stay with the tests
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    return app


def test_without_predictions_the_exit_code_is_2(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["drift-report"])
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.exit_code == ExitCode.BAD_INPUT
    assert "Run `product-classifier predict` first" in str(result.exception)


def test_a_batch_of_an_older_bundle_is_skipped_and_takes_earlier_figures_away(
    app: typer.Typer, workspace: Workspace, settings: Settings, make_bundle: MakeBundle
) -> None:
    make_report(workspace, settings, make_comparison(make_rows(60, seed=2)))
    bundle = make_bundle(workspace.candidate)  # without a reference
    workspace.raw.mkdir(parents=True)
    table = workspace.raw / TEST_FILE
    table.write_text(",designation,description,productid,imageid\n5,Livre,,1,2\n")
    workspace.predictions.mkdir()
    bundle_id = read_json(bundle / "manifest.json")["content_id"][:16]
    said = {
        "bundle_id": bundle_id,
        "dataset": table.name,
        "dataset_sha256": sha256_file(table),
    }
    write_json_atomic(workspace.predictions / "summary.json", said)
    (workspace.predictions / "predictions.csv").write_text("row,code,confidence\n5,10,0.9\n")
    assert (workspace.metrics / "drift.prom").exists()

    result = CliRunner().invoke(app, ["drift-report"])

    assert isinstance(result.exception, NothingToDo)
    assert result.exception.exit_code == ExitCode.NOTHING_TO_DO
    assert "Train again" in str(result.exception)
    assert not (workspace.metrics / "drift.prom").exists()


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--since", "1x"], {"ADMIN_PASSWORD": "p"}, "--since: expected"),
        ([], {}, "ADMIN_PASSWORD is not set"),
        (["--api", "http://me:secret-1@host"], {"ADMIN_PASSWORD": "p"}, "without a user name"),
    ],
    ids=["span", "no password", "password in the address"],
)
def test_a_wish_that_can_not_be_met_names_the_option(
    app: typer.Typer,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    environment: dict[str, str],
    message: str,
) -> None:
    monkeypatch.delenv("ADMIN_PASSWORD", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["drift-report", "--api", NOWHERE, *options])
    assert isinstance(result.exception, ConfigurationError)
    assert re.search(message, str(result.exception))
    assert "secret-1" not in str(result.exception)
