"""`product-classifier start` for real: Airflow, MLflow, the supervisor, auth and serve with a trained model.

Only the stages that make data and models are stand-ins.

The checkout is at a path with spaces. Both environments are the ones the tests run with.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from prediction_app import make_variant
from product_classifier.core.releases import current_champion, point_champion, publish_release
from product_classifier.core.settings import MonitoringSettings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.programs import find_programs, missing_programs
from product_classifier.runtime.supervision import Supervisor
from started import marked_processes, run_printed_commands
from unused_ports import free_ports

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "dags" / "fake_product_classifier.py"
RUNTIME = "start|stop|status|logs|init-airflow|doctor|clean|auth|serve|deploy|smoke|rollback"
RUNTIME += "|alert-log|statsd-exporter"
API = ("auth", "serve")
SERVICES = ("airflow-api-server", "airflow-dag-processor", "airflow-scheduler", "mlflow", *API)

MONITORING_PORTS = tuple(
    name.upper() for name in MonitoringSettings.model_fields if name.endswith("_port")
)

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not (ROOT / "airflow" / ".venv" / "bin" / "airflow").exists(),
        reason="airflow/.venv is not installed: run `make setup`",
    ),
]


class Checkout:
    def __init__(self, root, trained):
        self.root = root
        for name in ("airflow/dags", "data", "models", ".venv/bin"):
            (root / name).mkdir(parents=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(
            ROOT / "airflow" / "dags", root / "airflow" / "dags", ignore=ignore, dirs_exist_ok=True
        )
        shutil.copytree(ROOT / "airflow" / "config", root / "airflow" / "config", ignore=ignore)
        for name in ("airflow/initialise.py", "airflow/uv.lock", "airflow/pyproject.toml"):
            shutil.copy(ROOT / name, root / name)
        (root / "airflow" / ".venv").symlink_to(ROOT / "airflow" / ".venv")
        (root / "monitoring").symlink_to(ROOT / "monitoring")
        (root / "dvc.yaml").write_text("stages: {}\n")
        shutil.copytree(trained.raw, root / "data" / "raw", symlinks=True)
        self.workspace = Workspace(root)
        for seed in (1, 2):
            bundle = make_variant(trained.candidate, root / f"bundle-{seed}", seed)
            release = publish_release(self.workspace, bundle)
            point_champion(self.workspace, release.release_id, "the test's")
        self.airflow_port, self.mlflow_port, self.auth_port, self.serve_port = free_ports(4)
        self.monitoring_ports = dict(
            zip(MONITORING_PORTS, free_ports(len(MONITORING_PORTS)), strict=True)
        )
        self.write_env(self.airflow_port)
        binaries = Path(sys.executable).parent
        (root / ".venv" / "bin" / "mlflow").symlink_to(binaries / "mlflow")
        program = root / ".venv" / "bin" / "product-classifier"
        program.write_text(
            f'#!/bin/sh\ncase "$1" in {RUNTIME}) exec "{binaries}/product-classifier" "$@";;\n'
            f'*) exec "{sys.executable}" -S "{FAKE}" "$@";; esac\n'
        )
        program.chmod(0o755)

    def write_env(self, airflow_port):
        lines = f"PIPELINE_RUNTIME=process\nAIRFLOW_PORT={airflow_port}\nMLFLOW_PORT={self.mlflow_port}\n"
        lines += f"AUTH_PORT={self.auth_port}\nSERVE_PORT={self.serve_port}\n"
        lines += "".join(f"{name}={port}\n" for name, port in self.monitoring_ports.items())
        passwords = re.findall(r"\w+_PASSWORD=.*\n", self.env())
        (self.root / ".env").write_text(lines + "".join(passwords))

    def env(self):
        path = self.root / ".env"
        return path.read_text() if path.exists() else ""

    def call(self, *arguments):
        names = ("PATH", "HOME", "LANG", "TMPDIR")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        return subprocess.run(
            [str(self.root / ".venv" / "bin" / "product-classifier"), *arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
        )

    def password(self, name):
        return re.search(rf"^{name}=(\S+)$", self.env(), re.MULTILINE)[1]

    def champion_id(self):
        return current_champion(self.workspace).release_id

    def get(self, path, **options):
        url = f"http://127.0.0.1:{self.serve_port}{path}"
        return httpx.get(url, timeout=60, trust_env=False, **options)

    def service_pids(self, *names):
        """Of these services; their children come and go."""
        states = Supervisor(Layout(self.root)).states()
        return {name: states[name].pid for name in names or API}

    def stage_calls(self):
        path = self.root / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line)["name"] for line in lines]

    def processes(self):
        return marked_processes(self.root)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, trained_workspace):
    checkout = Checkout(tmp_path_factory.mktemp("embedded") / "my check out", trained_workspace)
    yield checkout
    checkout.call("stop")


def until(fact, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < deadline, f"Waited {seconds} s for: {what}"
        time.sleep(0.1)
    return value


def served_bundle(checkout):
    try:
        answer = checkout.get("/ready")
    except httpx.HTTPError:
        return None
    return answer.json()["bundle_id"] if answer.status_code == 200 else None


def check_api(checkout, printed):
    """What the first start leaves: a working API, a rollback that it follows, a restart after a crash."""
    token, answer = run_printed_commands(checkout.root, printed)
    assert answer["bundle_id"] == checkout.champion_id()
    assert answer["modalities"] == "text+image"
    assert answer["predictions"][0]["label"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert checkout.get("/users/me", headers=bearer).status_code == 404  # auth's, not serve's

    # Its administrator starts the pipeline through it, with the account that may only do that.
    url = f"http://127.0.0.1:{checkout.serve_port}/train"

    def start_run():
        answer = httpx.post(url, json={}, headers=bearer, timeout=60, trust_env=False)
        if answer.status_code == 503:  # Airflow did not answer in time
            return None
        assert answer.is_success, answer.text
        return answer

    started = until(start_run, "Airflow to take a run")
    run = f"/train/{started.json()['run_id']}"

    def end_of_run():
        try:
            found = checkout.get(run, headers=bearer).json().get("state")
        except httpx.HTTPError:  # its deploy task may have replaced serve
            return None
        return found if found in ("success", "failed") else None

    state = until(end_of_run, "the run that the API started", 300)
    assert state == "success"
    assert checkout.stage_calls()[0] == "check ingest"

    # A rollback is followed without a restart, a crash is.
    pids = checkout.service_pids()
    assert checkout.call("rollback").returncode == 0
    until(lambda: served_bundle(checkout) == checkout.champion_id(), "serve to exchange its model")
    assert checkout.service_pids() == pids
    os.kill(pids["serve"], signal.SIGKILL)
    until(lambda: checkout.service_pids()["serve"] not in (0, pids["serve"]), "a new serve")
    until(lambda: served_bundle(checkout) == checkout.champion_id(), "the new serve")
    assert checkout.service_pids()["auth"] == pids["auth"]


def check_monitoring(checkout, printed):
    """`start` brings the monitoring up where its programs are, and it asks what the pipeline deploys."""
    if missing_programs(find_programs()):
        assert "Monitoring was left out." in printed
        assert "apt-get install" in printed
        return
    port = checkout.monitoring_ports["PROMETHEUS_PORT"]
    assert f"http://localhost:{port}," in printed
    url = f"http://127.0.0.1:{port}/api/v1/targets?state=active"

    def health():
        try:
            targets = httpx.get(url, timeout=30, trust_env=False).json()["data"]["activeTargets"]
        except httpx.HTTPError:
            return None
        return {target["labels"]["job"]: target["health"] for target in targets}

    jobs = {"prometheus", "alertmanager", "node", "pipeline", "airflow", "fastapi", "auth"}
    until(lambda: health() == dict.fromkeys(jobs, "up"), "every target to be up", 180)


def test_the_embedded_run_from_first_start_to_stop(checkout):
    # A port is taken: said with its holder and a way out, nothing is started.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", checkout.airflow_port))
        listener.listen()
        result = checkout.call("start")
    assert result.returncode == 2, result.stdout
    assert f"Port {checkout.airflow_port}" in result.stderr
    assert "set AIRFLOW_PORT=" in result.stderr
    assert checkout.processes() == []
    # The password is shown when it is generated, whatever comes after, and never again.
    passwords = [checkout.password("AIRFLOW_ADMIN_PASSWORD"), checkout.password("ADMIN_PASSWORD")]
    assert all(password in result.stdout for password in passwords)

    # First start: everything is made, the pipeline runs, addresses and login are shown.
    result = checkout.call("start", "--set", "text_epochs=3", "--data-source", "sample")
    assert result.returncode == 0, result.stdout + result.stderr
    for text in ("Runtime: process", "Started", "serving_stage.smoke: success"):
        assert text in result.stdout
    assert f"http://localhost:{checkout.mlflow_port}" in result.stdout
    assert f"http://localhost:{checkout.serve_port}/docs" in result.stdout
    calls = checkout.stage_calls()
    assert calls[0] == "params set"
    assert calls[-2:] == ["version predict", "drift-report"]
    assert (checkout.root / ".env").stat().st_mode & 0o077 == 0
    check_monitoring(checkout, result.stdout)
    check_api(checkout, result.stdout)

    # Again: what runs is reused, unchanged stages are skipped, no password is shown again.
    pids = checkout.service_pids(*SERVICES)
    result = checkout.call("start")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Running already" in result.stdout
    assert checkout.stage_calls() == ["check ingest", "check train", "gate", "check predict"]
    assert "as AIRFLOW_ADMIN_PASSWORD in .env" in result.stdout
    assert not any(password in result.stdout for password in passwords)
    assert checkout.service_pids(*SERVICES) == pids
    assert (
        run_printed_commands(checkout.root, result.stdout)[1]["bundle_id"] == checkout.champion_id()
    )

    # Parameters that there are not, or out of bounds, are refused.
    result = checkout.call("start", "--set", "epochs=3")
    assert result.returncode == 2
    assert "text_epochs" in result.stderr
    assert checkout.call("start", "--set", "text_epochs=0").returncode == 2

    # Status is healthy; logs are there.
    result = checkout.call("status")
    assert result.returncode == 0, result.stdout
    assert "Last run: manual__" in result.stdout
    for service in SERVICES:
        assert service in result.stdout
        assert checkout.call("logs", service, "-n", "3").stdout

    # A failed stage: its reason is in the terminal, the exit code is 1.
    control = {"train": {"exit": 2, "message": "row 7: price is missing"}}
    (checkout.root / "control.json").write_text(json.dumps(control))
    result = checkout.call("start", "--force")
    assert result.returncode == 1
    assert "training_stage.run failed" in result.stdout
    assert "row 7: price is missing" in result.stdout

    # Changed settings restart what they concern; what was deployed stays.
    pids = checkout.service_pids("auth", "mlflow")
    (other_port,) = free_ports(1)
    checkout.write_env(other_port)
    result = checkout.call("start", "--no-trigger")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"http://localhost:{other_port}" in result.stdout
    assert "mlflow" not in next(line for line in result.stdout.splitlines() if "Started" in line)
    assert checkout.service_pids("auth", "mlflow") == pids
    assert served_bundle(checkout) == checkout.champion_id()

    # Clean waits for stop; stop leaves nothing.
    assert checkout.call("clean", "--yes").returncode == 2
    assert checkout.call("stop").stdout == "Stopped.\n"
    assert checkout.processes() == []
    assert checkout.call("stop").stdout == "Nothing ran.\n"
    assert checkout.call("status").returncode == 1
