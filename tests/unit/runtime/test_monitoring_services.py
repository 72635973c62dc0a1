"""The monitoring's programs as services: what is found, what each is started with, who is asked."""

import json
import re
import shutil
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime.api_services import remember_deployed
from product_classifier.runtime.monitoring import programs
from product_classifier.runtime.monitoring.configuration import write_configuration
from product_classifier.runtime.monitoring.programs import (
    PROGRAMS,
    find_program,
    find_programs,
    install_hint,
    missing_programs,
)
from product_classifier.runtime.monitoring.services import (
    SERVICES,
    all_services,
    health_addresses,
    monitoring_services,
    wants_monitoring,
)
from product_classifier.runtime.monitoring.start import embedded_lines
from product_classifier.runtime.monitoring.targets import update_targets, write_targets

SECRETS = {
    "alert_webhook_url": "https://example.org/hook/the-token",
    "alert_heartbeat_url": "https://beat.example.org/the-watcher-token",
    "alert_slack_url": "https://slack.example.org/the-slack-token",
    "alert_smtp_password": "the mail password",
    "grafana_admin_password": "the Grafana password",
}
MAIL = {
    "alert_smtp_user": "alerts",
    "alert_smtp_address": "mail.example.org:587",
    "alert_email_to": "ops@example.org",
    "alert_email_from": "alerts@example.org",
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes programs by name, the only ones that there are."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(programs, "_MORE_FOLDERS", str(tmp_path / "nowhere"))

    def install(*names):
        for name in names:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)

    return install


@pytest.fixture
def checkout(layout):
    """A checkout with the project's monitoring files."""
    root = Path(__file__).parents[3]
    (layout.root / "monitoring").symlink_to(root / "monitoring")
    return layout


def full(settings):
    values = {name: SecretStr(value) for name, value in SECRETS.items()}
    return settings.model_copy(update={**values, **MAIL})


DEBIAN = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")
UPSTREAM = ("prometheus", "alertmanager", "node_exporter")


@pytest.mark.parametrize("names", [DEBIAN, UPSTREAM], ids=["Debian's names", "their own names"])
def test_programs_are_found_under_either_name(installed, names):
    assert missing_programs(find_programs()) == ["prometheus", "alertmanager", "node-exporter"]
    installed(*names)
    assert missing_programs(find_programs()) == []
    assert "grafana" not in find_programs()
    installed("grafana-server")
    assert find_programs()["grafana"].endswith("/bin/grafana-server")


def test_what_is_missing_is_said_with_the_way_to_get_it(installed):
    installed("prometheus", "node_exporter")
    hint = install_hint(missing_programs(find_programs()))
    assert "Not installed here: alertmanager." in hint
    assert "apt-get install --no-install-recommends prometheus-alertmanager`" in hint
    assert "https://prometheus.io/download/" in hint
    assert all(one.package for one in PROGRAMS.values() if one.required)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.31.2+ds1", ["prometheus"]), ("2.42.0+ds", []), ("3.5.3", [])],
)
def test_a_prometheus_that_can_not_read_the_rules_is_missing(
    installed, tmp_path, version, expected
):
    installed(*DEBIAN)
    program = find_program("prometheus")
    Path(program).write_text(f"#!/bin/sh\necho 'prometheus, version {version} (branch: x)'\n")
    assert missing_programs(find_programs()) == expected
    assert "Not installed here: prometheus 2.42 or newer." in install_hint(["prometheus"])


@pytest.mark.parametrize(
    ("mode", "names", "expected"),
    [("auto", (), False), ("auto", DEBIAN, True), ("on", DEBIAN, True), ("off", DEBIAN, False)],
)
def test_monitoring_runs_where_it_is_wanted_and_can(installed, settings, mode, names, expected):
    installed(*names)
    assert wants_monitoring(settings.model_copy(update={"monitoring": mode})) is expected


def test_asked_for_and_not_there_is_an_error(installed, settings, checkout):
    installed("prometheus")
    chosen = settings.model_copy(update={"monitoring": "on"})
    with pytest.raises(ConfigurationError, match="MONITORING=on.*alertmanager, node-exporter"):
        all_services(checkout, chosen)


def test_a_start_without_the_programs_says_what_is_left_out(installed, settings):
    (line,) = embedded_lines(settings, None)
    assert line.startswith("Monitoring was left out. Not installed here: prometheus")
    assert embedded_lines(settings.model_copy(update={"monitoring": "off"}), None) == []


def test_everything_listens_on_loopback_alone(installed, settings, checkout):
    installed(*DEBIAN)
    found = {service.name: service for service in monitoring_services(checkout, settings)}
    assert set(found) == set(SERVICES) - {"grafana"}
    for name, service in found.items():
        listens = re.findall(r"--\S*listen\S*=(\S+)", " ".join(service.command))
        assert all(part.startswith("127.0.0.1:") for part in listens)
        assert (
            listens or name == "alert-log"
        )  # which listens on 127.0.0.1 unless it is told otherwise
        assert health_addresses(settings)[name].startswith(f"http://127.0.0.1:{service.port}/")
    assert "--cluster.listen-address=" in found["alertmanager"].command


def test_a_secret_is_on_no_command_line_and_in_no_file_that_others_read(
    installed, settings, checkout
):
    installed(*DEBIAN, "grafana")
    chosen = full(settings)
    write_configuration(checkout, chosen)
    found = monitoring_services(checkout, chosen)
    for service in found:
        told = f"{service.command} {service!r}"
        assert not any(secret in told for secret in SECRETS.values())
        in_environment = {n for n, v in SECRETS.items() if v in service.environment.values()}
        assert in_environment == (
            {"grafana_admin_password"} if service.name == "grafana" else set()
        )
    holding = []
    for path in checkout.state.rglob("*"):
        if path.is_file() and any(value in path.read_text() for value in SECRETS.values()):
            holding.append(path.name)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert holding == ["alertmanager.yml"]
    assert stat.S_IMODE(checkout.monitoring.stat().st_mode) == 0o700


def test_grafana_without_a_password_is_not_started(installed, settings, checkout):
    installed(*DEBIAN, "grafana")
    assert "grafana" not in {service.name for service in monitoring_services(checkout, settings)}
    grafana = monitoring_services(checkout, full(settings))[-1]
    assert grafana.command[1] == "server"
    assert grafana.environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert grafana.environment["PROMETHEUS_URL"] == "http://127.0.0.1:9090"
    home = grafana.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert json.loads(Path(home).read_text())["uid"] == "product-classifier-service"


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ({"prometheus_retention": "30d"}, {"prometheus"}),
        ({"alert_webhook_url": SecretStr("https://example.org/other")}, {"alertmanager"}),
        ({"alertmanager_port": 9999}, {"prometheus", "alertmanager"}),
        ({"alert_log_port": 9998}, {"alertmanager", "alert-log"}),
        ({"serve_port": 9997}, set()),
    ],
    ids=["retention", "a receiver", "Alertmanager's port", "the log's port", "serve's port"],
)
def test_a_change_restarts_what_it_concerns(installed, settings, checkout, change, restarted):
    installed(*DEBIAN)
    before = {s.name: s.fingerprint() for s in monitoring_services(checkout, settings)}
    assert before == {s.name: s.fingerprint() for s in monitoring_services(checkout, settings)}
    other = settings.model_copy(update=change)
    after = {s.name: s.fingerprint() for s in monitoring_services(checkout, other)}
    assert {name for name in before if before[name] != after[name]} == restarted


def test_changed_rules_restart_prometheus(installed, settings, layout):
    installed(*DEBIAN)
    root = Path(__file__).parents[3]
    shutil.copytree(root / "monitoring", layout.root / "monitoring")
    before = {s.name: s.fingerprint() for s in monitoring_services(layout, settings)}
    (layout.root / "monitoring" / "prometheus" / "rules" / "mine.yml").write_text("groups: []\n")
    after = {s.name: s.fingerprint() for s in monitoring_services(layout, settings)}
    assert {name for name in before if before[name] != after[name]} == {"prometheus"}


def test_the_statsd_exporter_that_is_installed_takes_the_place_of_ours(
    installed, settings, checkout
):
    installed(*DEBIAN)

    def command():
        found = {service.name: service for service in monitoring_services(checkout, settings)}
        return found["statsd-exporter"].command

    assert command()[:2] == (str(checkout.program("product-classifier")), "statsd-exporter")
    installed("statsd_exporter")
    assert command()[0].endswith("/statsd_exporter")
    assert "--statsd.listen-tcp=" in command()  # else it would listen on all addresses


def targets(layout, job):
    return json.loads((layout.monitoring / "targets" / f"{job}.json").read_text())


def test_auth_and_serve_are_asked_once_they_are_deployed(layout, settings):
    update_targets(layout, settings)
    assert not (layout.monitoring / "targets").exists()  # no monitoring was set up here
    write_targets(layout, settings)
    assert targets(layout, "fastapi") == targets(layout, "auth") == []
    assert targets(layout, "node") == [{"targets": ["127.0.0.1:9100"]}]
    remember_deployed(layout, "serve")
    anywhere = settings.model_copy(update={"serve_host": "0.0.0.0", "serve_port": 8123})
    update_targets(layout, anywhere)
    assert targets(layout, "fastapi") == [{"targets": ["127.0.0.1:8123"]}]
    assert targets(layout, "auth") == []
    write_targets(layout, anywhere, ())  # the monitoring alone, without what was stopped
    assert targets(layout, "fastapi") == []
