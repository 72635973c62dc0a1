"""The gate beside a real DVC: what runs it again, and that a rollback is no reason to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from product_classifier.commands import gate, models
from product_classifier.core.errors import NothingToDo
from product_classifier.core.releases import current_champion
from product_classifier.core.workspace import Workspace

MakeBundle = Callable[..., Path]

DVC_YAML = """
stages:
  gate:
    cmd: product-classifier gate --no-record
    deps: [models/candidate]
    params: [gate]
    outs:
      - models/champion.json:
          persist: true
"""


@pytest.fixture
def run(
    workspace: Workspace, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    root = workspace.root
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    remote = origin\n"
        "['remote \"origin\"']\n    url = ../dvc-remote\n"
    )
    (root / "dvc-remote").mkdir()
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text("gate: {min_accuracy: 0.6}\n")
    make_bundle(workspace.candidate, "first")
    app = typer.Typer()
    gate.register(app)
    models.register(app)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def champion_id(workspace: Workspace) -> str:
    champion = current_champion(workspace)
    assert champion is not None
    return champion.release_id


def train_again(workspace: Workspace, make_bundle: MakeBundle, seed: str, **metrics: float) -> None:
    shutil.rmtree(workspace.candidate)
    make_bundle(workspace.candidate, seed, **metrics)


def test_gate_runs_once_for_one_candidate(run: Callable[..., Result]) -> None:
    first = run("gate")
    assert first.exit_code == 0, first.exception
    assert "Gate: published." in first.stdout
    assert isinstance(run("gate").exception, NothingToDo)
    assert "Gate: unchanged." in run("gate", "--force").stdout


def test_new_candidate_or_floor_runs_it_again(
    run: Callable[..., Result], workspace: Workspace, make_bundle: MakeBundle
) -> None:
    run("gate")
    train_again(workspace, make_bundle, "second")
    assert "Gate: published." in run("gate").stdout
    (workspace.root / "params.yaml").write_text("gate: {min_accuracy: 0.7}\n")
    assert "Gate: unchanged." in run("gate").stdout


def test_refused_candidate_is_judged_once(
    run: Callable[..., Result], workspace: Workspace, make_bundle: MakeBundle
) -> None:
    run("gate")
    before = champion_id(workspace)
    train_again(workspace, make_bundle, "worse", accuracy=0.1)
    refused = run("gate")
    assert refused.exit_code == 0
    assert "Gate: refused." in refused.stdout
    assert champion_id(workspace) == before
    assert isinstance(run("gate").exception, NothingToDo)


def test_rollback_is_not_undone_by_the_next_gate(
    run: Callable[..., Result], workspace: Workspace, make_bundle: MakeBundle
) -> None:
    run("gate")
    first = champion_id(workspace)
    train_again(workspace, make_bundle, "second")
    run("gate")
    rolled_back = run("rollback")
    assert rolled_back.exit_code == 0, rolled_back.exception
    assert isinstance(run("gate").exception, NothingToDo)
    assert champion_id(workspace) == first


def test_rollback_does_not_hide_a_candidate_that_nobody_has_judged(
    run: Callable[..., Result], workspace: Workspace, make_bundle: MakeBundle
) -> None:
    run("gate")
    train_again(workspace, make_bundle, "second")
    run("gate")
    train_again(workspace, make_bundle, "third")
    run("rollback")
    assert "Gate: published." in run("gate").stdout
