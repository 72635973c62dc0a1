"""`product-classifier start` for real: Airflow, MLflow and the supervisor; only the stages are stand-ins.

The checkout is at a path with spaces. Both environments are the ones the tests run with.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from product_classifier.runtime.layout import STATE_VARIABLE

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "dags" / "fake_product_classifier.py"
RUNTIME = "start|stop|status|logs|init-airflow|doctor|clean"
SERVICES = ("airflow-api-server", "airflow-dag-processor", "airflow-scheduler", "mlflow")

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (ROOT / "airflow" / ".venv" / "bin" / "airflow").exists(),
        reason="airflow/.venv is not installed: run `make setup`",
    ),
]


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Checkout:
    def __init__(self, root):
        self.root = root
        for name in ("airflow/dags", "data", "models", ".venv/bin"):
            (root / name).mkdir(parents=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(
            ROOT / "airflow" / "dags", root / "airflow" / "dags", ignore=ignore, dirs_exist_ok=True
        )
        for name in ("airflow/initialise.py", "airflow/uv.lock", "airflow/pyproject.toml"):
            shutil.copy(ROOT / name, root / name)
        (root / "airflow" / ".venv").symlink_to(ROOT / "airflow" / ".venv")
        (root / "dvc.yaml").write_text("stages: {}\n")
        self.airflow_port, self.mlflow_port = free_ports(2)
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
        lines = f"AIRFLOW_PORT={airflow_port}\nMLFLOW_PORT={self.mlflow_port}\n"
        password = re.findall(r"AIRFLOW_ADMIN_PASSWORD=.*\n", self.env())
        (self.root / ".env").write_text(lines + "".join(password))

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

    def stage_calls(self):
        path = self.root / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line)["name"] for line in lines]

    def processes(self):
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(STATE_VARIABLE) == str(self.root / ".state"):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("embedded") / "my check out")
    yield checkout
    checkout.call("stop")


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
    password = re.search(r"AIRFLOW_ADMIN_PASSWORD=(\S+)", checkout.env())[1]
    assert password in result.stdout

    # First start: everything is made, the pipeline runs, addresses and login are shown.
    result = checkout.call("start", "--set", "text_epochs=3", "--data-source", "sample")
    assert result.returncode == 0, result.stdout + result.stderr
    for text in ("Runtime: process", "Started", "prediction_stage.version: success"):
        assert text in result.stdout
    assert f"http://localhost:{checkout.mlflow_port}" in result.stdout
    calls = checkout.stage_calls()
    assert calls[0] == "params set"
    assert calls[-1] == "version predict"
    assert (checkout.root / ".env").stat().st_mode & 0o077 == 0

    # Again: what runs is reused, unchanged stages are skipped, the password is not shown again.
    before = {process.pid for process in checkout.processes()}
    result = checkout.call("start")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Running already" in result.stdout
    assert checkout.stage_calls() == ["check ingest", "check train", "gate", "check predict"]
    assert "as AIRFLOW_ADMIN_PASSWORD in .env" in result.stdout
    assert password not in result.stdout
    assert before <= {process.pid for process in checkout.processes()}

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

    # Changed settings restart what they concern.
    pids = {p.pid for p in checkout.processes() if "mlflow" in " ".join(p.cmdline())}
    (other_port,) = free_ports(1)
    checkout.write_env(other_port)
    result = checkout.call("start", "--no-trigger")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"http://localhost:{other_port}" in result.stdout
    assert "mlflow" not in next(line for line in result.stdout.splitlines() if "Started" in line)
    assert pids <= {process.pid for process in checkout.processes()}

    # Clean waits for stop; stop leaves nothing.
    assert checkout.call("clean", "--yes").returncode == 2
    assert checkout.call("stop").stdout == "Stopped.\n"
    assert checkout.processes() == []
    assert checkout.call("stop").stdout == "Nothing ran.\n"
    assert checkout.call("status").returncode == 1
