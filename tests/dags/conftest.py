"""A real Airflow on scratch folders, with `fake_product_classifier.py` for the stages."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

# Collected by the project's own environment too (`pytest tests`), which has no Airflow.
if importlib.util.find_spec("airflow.sdk") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(ROOT / "airflow" / "dags"), str(Path(__file__).parent)]
    sys.path.append(str(ROOT / "tests"))  # last: what all tests share hides no package of Airflow's

import pytest

PASSWORDS = {"admin": "an administrator's password", "trigger": "a trigger's password"}
FAKE = Path(__file__).parent / "fake_product_classifier.py"


def replace_constant(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new))


def machine_environment():
    keep = ("PATH", "HOME", "LANG", "TMPDIR", "USER")
    return {name: os.environ[name] for name in keep if name in os.environ}


class Scratch:
    """A workspace, a copy of the DAGs with short delays, and Airflow's configuration for both."""

    def __init__(self, folder):
        self.folder = folder
        self.workspace = folder / "work space"
        self.home = folder / "airflow"
        self.dags = folder / "dags"
        self.metrics = folder / "metrics"
        self.workspace.mkdir(parents=True)
        self.home.mkdir()
        shutil.copytree(
            ROOT / "airflow" / "dags", self.dags, ignore=shutil.ignore_patterns("__pycache__")
        )
        common = self.dags / "common"
        replace_constant(
            common / "stage.py",
            "RETRY_DELAY = timedelta(seconds=20)",
            "RETRY_DELAY = timedelta(seconds=1)",
        )
        replace_constant(
            common / "operators.py", "STOP_GRACE_SECONDS = 10", "STOP_GRACE_SECONDS = 1"
        )
        (self.home / "passwords.json").write_text(json.dumps(PASSWORDS))
        program = folder / "product-classifier"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{FAKE}" "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **machine_environment(),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__AUTH_MANAGER": "pipeline_auth_manager.PipelineAuthManager",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,trigger:pipeline_trigger",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-these-tests-" + "0" * 64,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "PIPELINE_METRICS_PATH": str(self.metrics),
            "PIPELINE_RUNTIME": "process",
            "PYTHONPATH": str(ROOT / "airflow" / "config"),
            "PRODUCT_CLASSIFIER_PROGRAM": str(program),
            "PRODUCT_CLASSIFIER_WORKSPACE": str(self.workspace),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def reset(self):
        shutil.rmtree(self.workspace)
        self.workspace.mkdir()


@pytest.fixture(scope="session")
def migrated_home(tmp_path_factory):
    """An initialised Airflow home, made once: the tests copy it."""
    scratch = Scratch(tmp_path_factory.mktemp("migrated"))
    command = [sys.executable, str(ROOT / "airflow" / "initialise.py")]
    result = subprocess.run(
        command, env=scratch.environment, cwd=scratch.folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return scratch.home


def make_scratch(folder, home):
    scratch = Scratch(folder)
    shutil.copy(home / "airflow.db", scratch.home / "airflow.db")
    return scratch


@pytest.fixture
def scratch(tmp_path, migrated_home):
    return make_scratch(tmp_path / "scratch", migrated_home)


@pytest.fixture(scope="session")
def statsd():
    """Lines that Airflow sends as StatsD, as far as they have come."""
    lines = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))

        def receive():
            while packet := receiver.recv(65_535):
                lines.update(packet.decode().splitlines())

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            yield receiver.getsockname()[1], lines
        finally:
            receiver.sendto(b"", receiver.getsockname())
            thread.join()


@pytest.fixture(scope="session")
def airflow(tmp_path_factory, migrated_home, statsd):
    """A running Airflow: API server, scheduler, DAG processor."""
    from live_airflow import LiveAirflow

    from unused_ports import free_port

    scratch = make_scratch(tmp_path_factory.mktemp("live") / "scratch", migrated_home)
    port = free_port()
    scratch.environment |= {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd[0]),
        "AIRFLOW__METRICS__STATSD_PREFIX": "airflow",
        "AIRFLOW__METRICS__LEGACY_NAMES_ON": "True",
    }
    scratch.environment |= {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
    }
    program = str(Path(sys.executable).parent / "airflow")
    processes = []
    for command in ("api-server", "dag-processor", "scheduler --skip-serve-logs"):
        with (scratch.folder / f"{command.split()[0]}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [program, *command.split()],
                    env=scratch.environment,
                    cwd=scratch.home,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    live = LiveAirflow(scratch, port, processes, PASSWORDS)
    try:
        live.wait_until_ready()
        yield live
    finally:
        live.http.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in reversed(processes):
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + 60
            while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
                time.sleep(0.1)
