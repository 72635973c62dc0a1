"""`product-classifier monitoring` for real: the installed programs, supervised, at a path with spaces."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from monitoring_stack import require_monitoring
from product_classifier.core.settings import MonitoringSettings
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.supervision import Supervisor
from started import marked_processes
from unused_ports import free_ports

require_monitoring()

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
PORTS = tuple(name.upper() for name in MonitoringSettings.model_fields if name.endswith("_port"))
SERVICES = {
    *("prometheus", "alertmanager", "node-exporter"),
    *("pipeline-exporter", "statsd-exporter", "alert-log"),
}
UP = {"prometheus", "alertmanager", "node", "pipeline", "airflow"}


def until(fact, what, seconds=180):
    deadline = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < deadline, f"Waited {seconds} s for: {what}"
        time.sleep(0.3)
    return value


class Checkout:
    def __init__(self, root):
        self.root = root
        (root / ".venv" / "bin").mkdir(parents=True)
        (root / "monitoring").symlink_to(ROOT / "monitoring")
        (root / "dvc.yaml").write_text("stages: {}\n")
        program = root / ".venv" / "bin" / "product-classifier"
        program.symlink_to(Path(sys.executable).with_name("product-classifier"))
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.set()

    def set(self, **more):
        lines = {"PIPELINE_RUNTIME": "process", **self.ports, **more}
        (self.root / ".env").write_text("".join(f"{name}={v}\n" for name, v in lines.items()))

    def call(self, *arguments, **environment):
        names = ("PATH", "HOME", "LANG", "TMPDIR")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return subprocess.run(
            [str(self.root / ".venv" / "bin" / "product-classifier"), *arguments],
            cwd=self.root,
            env={**kept, **environment},
            capture_output=True,
            text=True,
        )

    def must(self, *arguments):
        done = self.call(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def url(self, name, path):
        return f"http://127.0.0.1:{self.ports[name]}{path}"

    def ask(self, path):
        answer = httpx.get(self.url("PROMETHEUS_PORT", path), trust_env=False, timeout=60)
        return answer.json()["data"]

    def health(self):
        targets = self.ask("/api/v1/targets?state=active")["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets}

    def value(self, expression, at=""):
        result = self.ask(f"/api/v1/query?query={expression}&time={at}")["result"]
        return float(result[0]["value"][1]) if result else None

    def pids(self):
        states = Supervisor(Layout(self.root)).states()
        return {name: state.pid for name, state in states.items() if state.alive}

    def processes(self):
        return marked_processes(self.root)


@pytest.fixture
def checkout(tmp_path):
    checkout = Checkout(tmp_path / "my check out")
    yield checkout
    checkout.call("stop")


def check_first_start(checkout):
    printed = checkout.must("monitoring")
    assert "Started alert-log, alertmanager" in printed
    assert f"http://localhost:{checkout.ports['PROMETHEUS_PORT']}," in printed
    assert "alerts go to: log" in printed
    assert set(checkout.pids()) == SERVICES
    until(lambda: checkout.health() == dict.fromkeys(UP, "up"), "every target to be up")
    rules = [rule for group in checkout.ask("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 20
    # What listens, listens on this machine alone.
    listening = [
        connection
        for process in checkout.processes()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    ]
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
    assert {one.laddr.port for one in listening} <= set(checkout.ports.values())


def check_text_files(checkout):
    folder = checkout.root / ".state" / "metrics" / "airflow"
    (folder / "test.prom").write_text("# TYPE of_a_test gauge\nof_a_test 42\n")
    until(lambda: checkout.value("of_a_test") == 42, "the exporter to read a text file")


def check_notification(checkout):
    """An alert goes through Alertmanager to the log."""
    alert = {
        "labels": {"alertname": "OfATest", "severity": "page"},
        "annotations": {"summary": "a test's"},
    }
    url = checkout.url("ALERTMANAGER_PORT", "/api/v2/alerts")
    httpx.post(url, json=[alert], trust_env=False, timeout=60).raise_for_status()
    until(lambda: "OfATest" in checkout.must("logs", "alert-log", "-n", "20"), "the alert's line")


def check_second_start(checkout):
    """What runs is left alone; a changed receiver restarts what reads it, and its secret stays private."""
    before = checkout.pids()
    assert "Runs already, unchanged." in checkout.must("monitoring")
    assert checkout.pids() == before
    checkout.set(ALERT_WEBHOOK_URL="http://127.0.0.1:9/the-token")
    printed = checkout.must("monitoring")
    assert "Started alertmanager." in printed
    assert "alerts go to: log, webhook" in printed
    after = checkout.pids()
    assert {name for name in before if before[name] != after[name]} == {"alertmanager"}
    assert not any("the-token" in " ".join(p.cmdline()) for p in checkout.processes())
    path = checkout.root / ".state" / "monitoring" / "alertmanager" / "alertmanager.yml"
    assert "the-token" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def check_crash(checkout):
    """A killed Prometheus comes back with what it knew."""
    pid = checkout.pids()["prometheus"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: checkout.pids().get("prometheus") not in (None, pid), "a new Prometheus")
    url = checkout.url("PROMETHEUS_PORT", "/-/ready")

    def ready():
        try:
            return httpx.get(url, trust_env=False, timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    until(ready, "the new Prometheus to be ready")


def test_the_monitoring_alone_from_start_to_stop(checkout):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", checkout.ports["ALERTMANAGER_PORT"]))
        listener.listen()
        refused = checkout.call("monitoring")
    assert refused.returncode == 2, refused.stdout
    assert f"Port {checkout.ports['ALERTMANAGER_PORT']} for alertmanager is taken" in refused.stderr
    assert "set ALERTMANAGER_PORT=" in refused.stderr
    assert checkout.processes() == []

    check_first_start(checkout)
    check_text_files(checkout)
    check_notification(checkout)
    check_second_start(checkout)
    check_crash(checkout)

    # Its memory outlives a stop: what was measured before is there after the next start.
    before_the_stop = time.time()
    assert checkout.must("stop") == "Stopped.\n"
    assert checkout.processes() == []
    checkout.must("monitoring")
    until(lambda: checkout.health() == dict.fromkeys(UP, "up"), "every target to be up again")
    assert checkout.value("last_over_time(of_a_test[1h])", before_the_stop) == 42
    assert checkout.must("stop") == "Stopped.\n"
    assert checkout.processes() == []


def test_without_the_programs_it_says_how_to_get_them(checkout, tmp_path):
    code = (
        "from product_classifier.runtime.monitoring import programs; programs._MORE_FOLDERS = '';"
        "from product_classifier.cli import main; main()"
    )
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "prometheus").symlink_to(shutil.which("prometheus"))
    done = subprocess.run(
        [sys.executable, "-c", code, "monitoring"],
        cwd=checkout.root,
        env={"PATH": str(folder), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stdout
    assert "Not installed here: alertmanager, node-exporter." in done.stderr
    assert "apt-get install" in done.stderr
    assert checkout.processes() == []


def test_off_means_off(checkout):
    done = checkout.call("monitoring", MONITORING="off")
    assert done.returncode == 2
    assert "MONITORING=off" in done.stderr
    assert checkout.processes() == []
