"""The profile `monitoring` of docker-compose.yml on a real engine, with stand-ins for the official images."""

import json
import subprocess
import time
import uuid

import httpx
import pytest
from stack_checkout import StackCheckout, until

from docker_program import docker

SERVICES = {
    *("prometheus", "alertmanager", "alert-log"),
    *("node-exporter", "pipeline-exporter", "statsd-exporter"),
}
TOKEN = "a-token-of-the-webhook"


class MonitoringCheckout(StackCheckout):
    def compose(self, *arguments):
        files = ["--env-file", ".env", "--env-file", ".state/compose.env"]
        command = ["docker", "compose", "--project-name", self.project, *files]
        done = subprocess.run(
            [*command, "--profile", "monitoring", *arguments],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, images):
    root = tmp_path_factory.mktemp("monitoring") / "check out"
    checkout = MonitoringCheckout(root, f"pc-test-{uuid.uuid4().hex[:6]}", images["auth"])
    with (root / ".env").open("a") as file:
        file.write(f"ALERT_WEBHOOK_URL=http://127.0.0.1:9/{TOKEN}\n")
    made = checkout.call("init-env")
    assert made.returncode == 0, made.stderr
    checkout.compose("up", "--detach", "--wait", "--no-deps", *SERVICES)
    yield checkout
    checkout.compose("down", "--volumes")


def test_every_target_that_is_there_is_up_and_the_rules_are_read(checkout):
    expected = {"prometheus", "alertmanager", "node", "pipeline", "airflow"}
    until(lambda: checkout.health() == dict.fromkeys(expected, "up"), "every target to be up", 60)
    rules = [
        rule
        for group in checkout.ask_prometheus("/api/v1/rules")["groups"]
        for rule in group["rules"]
    ]
    assert len(rules) > 20
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


def test_the_machines_memory_is_the_hosts(checkout):
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    found = until(lambda: checkout.value("node_memory_MemTotal_bytes"), "the first scrape", 60)
    assert found == total
    # Counters of the container's own network would be taken for the machine's.
    assert checkout.value("count(node_network_receive_bytes_total)") is None


def test_text_files_of_both_writers_are_read(checkout):
    folder = checkout.root / ".state" / "metrics" / "workspace"
    (folder / "test.prom").write_text("# TYPE of_a_stage gauge\nof_a_stage 42\n")
    # As the worker does, whose volume it is.
    exporter = checkout.service("pipeline-exporter")
    docker(
        "run",
        *("--rm", "--user", "0", "--entrypoint", "sh"),
        *("--volume", f"{checkout.project}_pipeline-metrics:/written"),
        docker("inspect", "--format", "{{.Image}}", exporter),
        *("-c", "printf '# TYPE of_a_task gauge\\nof_a_task 43\\n' > /written/test.prom"),
    )
    until(lambda: checkout.value("of_a_stage") == 42, "the stage's file", 40)
    until(lambda: checkout.value("of_a_task") == 43, "the task's file", 40)


def test_what_airflow_sends_arrives(checkout):
    send = (
        "import socket; socket.socket(type=socket.SOCK_DGRAM)"
        ".sendto(b'airflow.scheduler_heartbeat:1|c', ('statsd-exporter', 9125))"
    )
    docker("exec", checkout.service("alert-log"), "python", "-c", send)
    until(lambda: checkout.value("airflow_scheduler_heartbeat_total") == 1, "a heartbeat", 40)


def test_an_alert_is_in_the_log(checkout):
    alert = {"labels": {"alertname": "OfATest", "severity": "page"}}
    port = checkout.settings().alertmanager_port
    answer = httpx.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=[alert], trust_env=False)
    assert answer.status_code == 200

    def logged():
        done = docker("logs", checkout.service("alert-log"))
        return [json.loads(line) for line in done.splitlines() if "OfATest" in line]

    (line, *_rest) = until(logged, "the alert's line", 40)
    assert line["status"] == "firing"
    assert line["alerts"][0]["severity"] == "page"


def test_the_receivers_secret_is_where_alertmanager_alone_reads_it(checkout):
    path = checkout.root / ".state" / "monitoring" / "alertmanager-stack" / "alertmanager.yml"
    assert TOKEN in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    for name in SERVICES:
        assert TOKEN not in docker("inspect", checkout.service(name))


def test_data_outlive_the_containers(checkout):
    until(lambda: checkout.value("up{job='prometheus'}") == 1, "the first scrape", 60)
    stopped = time.time()
    checkout.compose("down")
    checkout.compose("up", "--detach", "--wait", "--no-deps", *SERVICES)
    age = round(time.time() - stopped)
    found = checkout.value(f"count_over_time(up{{job='prometheus'}}[1m] offset {age}s)")
    assert found is not None
    assert found >= 1


def test_make_monitoring_takes_up_a_changed_receiver_and_restarts_nothing_else(checkout):
    before = {name: checkout.service(name) for name in SERVICES}
    with (checkout.root / ".env").open("a") as file:
        file.write("ALERT_WEBHOOK_URL=http://127.0.0.1:9/another-token\n")
    done = checkout.call("monitoring")
    assert done.returncode == 0, done.stdout + done.stderr
    after = {name: checkout.service(name) for name in SERVICES}
    assert {name for name in SERVICES if before[name] != after[name]} == {"alertmanager"}
    again = checkout.call("monitoring")
    assert again.returncode == 0, again.stdout + again.stderr
    assert {name: checkout.service(name) for name in SERVICES} == after


def test_nothing_that_runs_is_root(checkout):
    for name in SERVICES:
        user = docker("exec", checkout.service(name), "sh", "-c", "grep ^Uid: /proc/1/status")
        assert user.split()[1] != "0"
