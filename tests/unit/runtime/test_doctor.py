import json
import socket
import time

import pytest
from pydantic import SecretStr
from rich.console import Console

from listening_service import listening_service
from product_classifier.core.settings import get_settings
from product_classifier.runtime.compose import Compose, parse_container
from product_classifier.runtime.doctor import (
    Finding,
    check_monitoring,
    check_ports,
    check_settings,
    examine,
    print_findings,
)
from product_classifier.runtime.ports import is_free
from product_classifier.runtime.supervision import Supervisor
from unused_ports import free_port


def level(findings, subject):
    return {finding.subject: finding.level for finding in findings}.get(subject)


@pytest.fixture(autouse=True)
def _fresh_settings(layout, monkeypatch):
    monkeypatch.chdir(layout.root)
    for name in ("AIRFLOW_PORT", "DATA_SOURCE", "SECRET_KEY", "ALGORITHM"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_a_placeholder_secret_fails(layout, settings):
    chosen = settings.model_copy(update={"dagshub_token": SecretStr("changeme")})
    found = [(f.subject, f.level) for f in check_settings(layout, chosen)]
    assert ("DAGSHUB_TOKEN", "fail") in found


@pytest.mark.parametrize(
    ("password", "expected"), [(None, "ok"), ("long enough", "ok"), ("short", "fail")]
)
def test_the_administrators_password_is_looked_at(layout, settings, password, expected):
    secret = SecretStr(password) if password else None
    chosen = settings.model_copy(update={"admin_password": secret})
    findings = list(check_settings(layout, chosen))
    assert level(findings, "ADMIN_PASSWORD") == expected
    assert not any(password in finding.message for finding in findings if password)


def test_every_port_of_a_service_is_looked_at(layout, settings):
    found = {finding.subject for finding in check_ports(layout, settings)}
    pipeline = {"AIRFLOW_PORT", "MLFLOW_PORT", "AUTH_PORT", "SERVE_PORT"}
    monitoring = {"PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT", "ALERT_LOG_PORT"}
    monitoring |= {"NODE_EXPORTER_PORT", "PIPELINE_EXPORTER_PORT", "AIRFLOW_EXPORTER_PORT"}
    assert found == pipeline | monitoring
    off = settings.model_copy(update={"monitoring": "off"})
    assert {finding.subject for finding in check_ports(layout, off)} == pipeline


def test_root_as_airflows_user_is_a_warning(layout, settings):
    chosen = settings.model_copy(update={"airflow_uid": 0})
    assert level(check_settings(layout, chosen), "AIRFLOW_UID") == "warn"


def test_a_project_host_path_that_is_no_checkout_is_a_warning(layout, settings, tmp_path):
    chosen = settings.model_copy(update={"project_host_path": tmp_path / "nowhere"})
    assert level(check_settings(layout, chosen), "PROJECT_HOST_PATH") == "warn"


def test_a_source_that_does_not_exist_fails(layout, settings):
    chosen = settings.model_copy(update={"data_source": "/no/such/folder"})
    assert level(check_settings(layout, chosen), "DATA_SOURCE") == "fail"


def test_an_env_that_others_can_read_is_a_warning(layout, settings):
    layout.dotenv.write_text("")
    layout.dotenv.chmod(0o644)
    assert level(check_settings(layout, settings), ".env") == "warn"


def port_findings(layout, settings, **ports):
    chosen = settings.model_copy(update=ports)
    return {f.subject: f for f in check_ports(layout, chosen)}


def test_a_port_is_ours_only_where_a_process_of_ours_listens(layout, settings):
    supervisor = Supervisor(layout)
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        ours = free_port()
        services = [listening_service(layout, "auth", ours), listening_service(layout, "x", taken)]
        try:
            supervisor.apply(services)
            deadline = time.monotonic() + 120
            while is_free(ours):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            found = port_findings(layout, settings, auth_port=ours, serve_port=taken)
        finally:
            supervisor.stop()
    assert (found["AUTH_PORT"].level, found["AUTH_PORT"].message) == ("ok", f"{ours} is ours")
    assert found["SERVE_PORT"].level == "fail"
    assert "is taken by" in found["SERVE_PORT"].message


@pytest.mark.parametrize(
    ("ports", "state", "expected"),
    [
        ("127.0.0.1:{}->8080/tcp, 9101/tcp", "running", "ok"),
        ("127.0.0.1:{}->8080/tcp", "exited", "fail"),
        ("9000/tcp, 127.0.0.1:1->8080/tcp", "running", "fail"),
    ],
)
def test_a_port_of_the_stack_is_ours_where_it_leads_into_a_running_container(
    layout, settings, monkeypatch, ports, state, expected
):
    stack = Compose(layout, settings.compose_project_name)
    stack.values_file.parent.mkdir(parents=True, exist_ok=True)
    stack.values_file.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        port = proxy.getsockname()[1]
        line = {"ID": "1", "Names": "airflow", "State": state, "Ports": ports.format(port)}
        containers = [parse_container(json.dumps(line))]
        monkeypatch.setattr(Compose, "containers", lambda self: containers)
        assert port_findings(layout, settings, airflow_port=port)["AIRFLOW_PORT"].level == expected


def test_a_taken_port_fails_and_names_another(layout, settings):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        chosen = settings.model_copy(update={"airflow_port": port})
        (finding,) = [f for f in check_ports(layout, chosen) if f.subject == "AIRFLOW_PORT"]
    assert finding.level == "fail"
    assert "set AIRFLOW_PORT=" in finding.message


def test_unusable_settings_are_a_finding_not_a_crash(layout, monkeypatch):
    monkeypatch.setenv("AIRFLOW_PORT", "eighty")
    findings = examine(layout)
    assert level(findings, "Settings") == "fail"
    assert level(findings, "Memory")


def test_missing_environments_fail_with_what_to_do(layout):
    findings = [f for f in examine(layout) if "venv" in f.subject]
    assert {f.level for f in findings} == {"fail"}
    assert all("make setup" in f.message for f in findings)


def test_only_a_failure_makes_the_report_fail():
    console = Console(record=True, force_terminal=False)
    assert print_findings([Finding("ok", "a", "b"), Finding("warn", "c", "[d]")], console)
    assert "warn  c: [d]" in console.export_text()
    assert not print_findings([Finding("fail", "a", "b")], console)


@pytest.mark.parametrize(
    ("mode", "runtime", "there", "expected"),
    [
        ("auto", "process", True, None),
        ("auto", "process", False, "warn"),
        ("on", "process", False, "fail"),
        ("off", "process", False, "ok"),
        ("on", "docker", False, None),
    ],
)
def test_missing_programs_of_the_monitoring_are_said(
    settings, monkeypatch, mode, runtime, there, expected
):
    found = ["prometheus", "alertmanager", "node-exporter"] if there else []
    monkeypatch.setattr("product_classifier.runtime.doctor.find_programs", lambda: found)
    update = {"monitoring": mode, "pipeline_runtime": runtime}
    findings = list(check_monitoring(settings.model_copy(update=update)))
    assert level(findings, "Monitoring") == expected
    if expected in ("warn", "fail"):
        assert "apt-get install" in findings[0].message


def test_who_is_told_of_alerts_is_said_without_their_addresses(settings):
    (alone,) = (f for f in check_monitoring(settings) if f.subject == "Alerts")
    assert alone.level == "ok"
    assert "nobody is told" in alone.message
    chosen = settings.model_copy(update={"alert_webhook_url": SecretStr("https://h/the-token")})
    (told,) = (f for f in check_monitoring(chosen) if f.subject == "Alerts")
    assert told.message == "go to log, webhook"
    half = settings.model_copy(update={"alert_email_to": "ops@example.org"})
    (broken,) = (f for f in check_monitoring(half) if f.subject == "Alerts")
    assert broken.level == "fail"
    assert "ALERT_SMTP_ADDRESS" in broken.message
