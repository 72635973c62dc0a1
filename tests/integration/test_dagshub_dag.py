"""The whole DAG on DagsHub's stand-in: a token and a repository in `.env`, then `start`, with every real stage."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.dagshub.hub import Hub, make_bucket
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.services import MLFLOW
from product_classifier.runtime.supervision import Supervisor
from product_classifier.tracking.server import connect
from unused_ports import free_ports

from .dagshub_checkout import ROOT, TOKEN, Checkout

SLUG = "jane/whole"
PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "AUTH_PORT", "SERVE_PORT")

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (ROOT / "airflow" / ".venv" / "bin" / "airflow").exists(),
        reason="airflow/.venv is not installed: run `make setup`",
    ),
]


def make_runnable(checkout: Checkout) -> None:
    """Adds what `start` needs to a checkout: Airflow's part, the programs, and `.env`."""
    root, binaries = checkout.root, Path(sys.executable).parent
    ignore = shutil.ignore_patterns("__pycache__", ".venv")
    shutil.copytree(ROOT / "airflow", root / "airflow", ignore=ignore)
    (root / "airflow" / ".venv").symlink_to(ROOT / "airflow" / ".venv")
    program = root / ".venv" / "bin" / "product-classifier"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{binaries}/product-classifier" "$@"\n')
    program.chmod(0o755)
    lines = {**checkout.settings, "PIPELINE_RUNTIME": "process", "MONITORING": "off"}
    lines |= {name: str(port) for name, port in zip(PORTS, free_ports(4), strict=True)}
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))


def call(checkout: Checkout, *arguments: str) -> "subprocess.CompletedProcess[str]":
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    return subprocess.run(
        [str(checkout.root / ".venv" / "bin" / "product-classifier"), *arguments],
        cwd=checkout.root,
        env={name: os.environ[name] for name in names if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(hub: Hub, tmp_path: Path) -> Iterator[Checkout]:
    hub.repositories.add(SLUG)
    make_bucket(hub, SLUG)
    checkout = Checkout(tmp_path / "whole", hub, SLUG)
    make_runnable(checkout)
    yield checkout
    call(checkout, "stop")


def test_the_dag_runs_on_a_token_and_a_repository(checkout: Checkout, hub: Hub) -> None:
    first = call(checkout, "start")
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-1000:]
    for task in (
        *("data_stage.version", "training_stage.version", "training_stage.gate"),
        *("prediction_stage.version", "serving_stage.smoke"),
    ):
        assert f"{task}: success" in first.stdout
    # Nothing of it is kept here: neither a server of our own was started, nor a local remote made.
    assert MLFLOW not in Supervisor(Layout(checkout.root)).states()
    assert not (checkout.root / "dvc-remote").exists()
    assert f"{hub.url}/{SLUG}.mlflow".replace("127.0.0.1", "localhost") in first.stdout
    with connect(checkout.typed()) as server:
        experiment = server.client.get_experiment_by_name(SLUG)
        runs = server.client.search_runs([experiment.experiment_id])
    champions = [run for run in runs if run.data.tags.get("alias.champion") == "true"]
    assert [run.info.status for run in champions] == ["FINISHED"]
    everything = [path for path in checkout.root.rglob("*.log") if path.is_file()]
    assert everything
    assert not [path for path in everything if TOKEN in path.read_text(errors="replace")]
    assert TOKEN not in first.stdout + first.stderr

    hashes = checkout.hashes()
    again = call(checkout, "start")
    assert again.returncode == 0, again.stdout[-4000:]
    for stage in ("data", "training", "prediction"):
        assert f"{stage}_stage.run: skipped" in again.stdout
    assert checkout.hashes() == hashes
