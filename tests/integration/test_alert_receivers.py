"""Slack, e-mail and webhook together, told by a real Alertmanager with the configuration that the environment makes.

Only the waits of the routes are shortened: `tests/unit/monitoring` looks at them, `test_alerts_live.py` waits for them.
Each test has a job of its own, so its alerts are a group of their own.
"""

import dataclasses
import html
import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from alert_receivers import (
    HOST,
    TLS,
    HTTPReceivers,
    Mail,
    MailServer,
    http_receivers,
    mail_server,
    make_certificate,
)
from monitoring_programs import Program, running_program
from monitoring_stack import require_monitoring
from product_classifier.core.settings import MonitoringSettings, Settings
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.configuration import write_configuration
from product_classifier.runtime.monitoring.services import monitoring_services
from unused_ports import free_port, free_ports

require_monitoring()

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0  # until a message is there, on a busy machine; three otherwise
PASSWORD = "the-password's {{ .Status }}"  # as it is: no template
SLACK, WEBHOOK = "/services/T0/B0/the-token-of-slack", "/hooks/the-token-of-the-webhook"
HEARTBEAT, LOG = "/ping/the-token-of-the-heartbeat", "/"
HOOKS = (WEBHOOK, LOG)
CHANNEL, SENDER = "#on-call", "alerts@example.org"
RECIPIENTS = ["one@example.org", "two@example.org"]
# Before, an address of a webhook was no secret to Alertmanager (its pull request 3228).
HIDES_WEBHOOKS = (0, 26)
RULES = {
    rule["alert"]: rule
    for path in (ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


@dataclass
class Told:
    """A running Alertmanager, and those whom it tells."""

    alertmanager: Program
    http: HTTPReceivers
    mail: MailServer

    def post(self, *alerts: dict[str, Any]) -> None:
        """Gives it alerts, as Prometheus does."""
        request = urllib.request.Request(
            f"{self.alertmanager.url}/api/v2/alerts",
            data=json.dumps(alerts).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            assert answer.status == 200

    def slack(self, title: str, text: str = "") -> dict[str, Any]:
        """Waits for a message in Slack with this title."""

        def shown(content: Any) -> bool:
            (attachment,) = content["attachments"]
            return bool(attachment["title"] == title and text in attachment["text"])

        posts = self.http.posts
        post = posts.wait_for(lambda one: one.path == SLACK and shown(one.content), SECONDS, title)
        return dict(post.content)

    def hook(self, path: str, job: str, states: dict[str, str]) -> dict[str, Any]:
        """Waits for a post to a webhook with these alerts of a job, by name."""

        def alerts(content: Any) -> dict[str, str]:
            fitting = [one for one in content["alerts"] if one["labels"].get("job") == job]
            return {one["labels"]["alertname"]: one["status"] for one in fitting}

        post = self.http.posts.wait_for(
            lambda one: one.path == path and alerts(one.content) == states,
            SECONDS,
            f"{path} {states}",
        )
        return dict(post.content)

    def mailed(self, subject: str) -> Mail:
        """Waits for a mail."""
        return self.mail.mails.wait_for(lambda one: one.subject == subject, SECONDS, subject)

    def logged(self, *parts: str) -> str:
        """Waits for a line of Alertmanager's log with all of these; gives the log."""
        deadline = time.monotonic() + SECONDS
        while True:
            text = self.alertmanager.log.read_text()
            if any(all(part in line for part in parts) for line in text.splitlines()):
                return text
            assert time.monotonic() < deadline, f"Not logged: {parts}. {text}"
            time.sleep(0.2)


def summary(name: str) -> str:
    return f"{name}: 40 % < 99,5 % & « très » \N{SNOWMAN}"


def alert(name: str, job: str, *, over: bool = False) -> dict[str, Any]:
    """An alert of the committed rules, with a text that has to be quoted everywhere."""
    rule, now = RULES[name], datetime.now(UTC)
    ends = {"endsAt": now.isoformat()} if over else {}
    return {
        "labels": {**rule["labels"], "alertname": name, "job": job},
        "annotations": {
            "summary": summary(name),
            "description": f"What {name} means.",
            "runbook_url": rule["annotations"]["runbook_url"],
        },
        "startsAt": (
            now - timedelta(minutes=1)
        ).isoformat(),  # a group that old waits for no others
        "generatorURL": "http://localhost:9090/graph",
        **ends,
    }


def settings_of(http: HTTPReceivers, smtp_port: int) -> Settings:
    """Reads the settings from an environment in which every receiver is set."""
    ports = [name.upper() for name in MonitoringSettings.model_fields if name.endswith("_port")]
    address = f"http://{HOST}:{http.port}"
    environment = {
        **{name: str(port) for name, port in zip(ports, free_ports(len(ports)), strict=True)},
        "ALERT_LOG_PORT": str(http.port),
        "ALERT_WEBHOOK_URL": address + WEBHOOK,
        "ALERT_HEARTBEAT_URL": address + HEARTBEAT,
        "ALERT_SLACK_URL": address + SLACK,
        "ALERT_SLACK_CHANNEL": CHANNEL,
        "ALERT_EMAIL_TO": ", ".join(RECIPIENTS),
        "ALERT_EMAIL_FROM": SENDER,
        "ALERT_SMTP_ADDRESS": f"{HOST}:{smtp_port}",
        "ALERT_SMTP_USER": "mailer",
        "ALERT_SMTP_PASSWORD": PASSWORD,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Settings(_env_file=None)  # type: ignore[call-arg]


def shorten_waits(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    for route in (content["route"], *content["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "2s"}
    path.write_text(yaml.safe_dump(content))


def make_checkout(root: Path) -> Layout:
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "monitoring").symlink_to(ROOT / "monitoring")
    (root / ".venv").mkdir()
    (root / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    layout = Layout(root)
    layout.prepare()
    return layout


@contextmanager
def running_alertmanager(
    folder: Path, smtp_port: int | None = None, tls: TLS = "asked for"
) -> Iterator[Told]:
    """Starts those who are told, and Alertmanager with what the product makes of the settings."""
    layout = make_checkout(folder / "check out")
    certificate = make_certificate(folder / "mail.pem")
    with ExitStack() as stack:
        http = stack.enter_context(http_receivers())
        mail = stack.enter_context(mail_server(smtp_port or free_port(), certificate, tls))
        settings = settings_of(http, mail.port)
        write_configuration(layout, settings)
        shorten_waits(layout.monitoring / "alertmanager" / "alertmanager.yml")
        services = {one.name: one for one in monitoring_services(layout, settings)}
        trusting = {"SSL_CERT_FILE": os.fspath(certificate)}
        service = services["alertmanager"]
        service = dataclasses.replace(service, environment={**service.environment, **trusting})
        yield Told(
            stack.enter_context(running_program(service, layout.logs, "/-/ready")), http, mail
        )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with running_alertmanager(tmp_path_factory.mktemp("receivers")) as running:
        yield running


def check_beginning(told: Told, name: str, severity: str, job: str) -> None:
    title, runbook = f"FIRING {severity}: {name} ({job})", f"docs/runbooks.md#{name.lower()}"
    slack = told.slack(title)
    (attachment,) = slack["attachments"]
    assert slack["channel"] == CHANNEL
    assert attachment["text"].splitlines() == [summary(name), f"What {name} means.", runbook]
    assert attachment["color"] == "danger"
    assert attachment["fallback"] == title
    port = told.alertmanager.port
    assert attachment["title_link"] == f"http://localhost:{port}/#/alerts?receiver={severity}"

    mail = told.mailed(title)
    assert (mail.sender, mail.recipients, mail.encrypted) == (SENDER, RECIPIENTS, True)
    assert mail.message["To"] == ", ".join(RECIPIENTS)
    text = html.unescape(mail.html)
    for part in (summary(name), f"What {name} means.", runbook, f"alertname = {name}"):
        assert part in text
    assert "[1] Firing" in text

    for path in HOOKS:
        post = told.hook(path, job, {name: "firing"})
        assert (post["receiver"], post["status"]) == (severity, "firing")
        (one,) = post["alerts"]
        assert one["annotations"]["summary"] == summary(name)
        assert one["annotations"]["runbook_url"] == runbook
        assert one["labels"]["severity"] == severity


def check_end(told: Told, name: str, severity: str, job: str) -> None:
    title = f"RESOLVED {severity}: {name} ({job})"
    slack = told.slack(title)
    (attachment,) = slack["attachments"]
    assert slack["channel"] == CHANNEL
    assert attachment["text"].splitlines() == [f"Over: {summary(name)}"]
    assert attachment["color"] == "good"
    mail = told.mailed(title)
    assert mail.recipients == RECIPIENTS
    assert "[1] Resolved" in mail.html
    for path in HOOKS:
        assert told.hook(path, job, {name: "resolved"})["receiver"] == severity


@pytest.mark.parametrize(
    ("name", "severity"), [("ServiceDown", "page"), ("BundleLoadFailed", "ticket")]
)
def test_everybody_is_told_of_an_alert_and_of_its_end(told: Told, name: str, severity: str) -> None:
    job = f"told-of-a-{severity}"
    told.post(alert(name, job))
    check_beginning(told, name, severity, job)
    told.post(alert(name, job, over=True))
    check_end(told, name, severity, job)
    assert set(told.mail.logins) == {("mailer", PASSWORD)}


def test_a_message_names_every_alert_of_a_service_and_says_which_are_over(told: Told) -> None:
    both, job = ("ServiceDown", "ServiceNotReady"), "with-two-alerts"
    told.post(*(alert(name, job) for name in both))
    title = f"FIRING page: {', '.join(both)} ({job})"
    told.slack(title)
    told.mailed(title)

    told.post(alert("ServiceDown", job, over=True))
    slack = told.slack(f"FIRING page: ServiceNotReady ({job})", text="Over: ")
    (attachment,) = slack["attachments"]
    assert attachment["color"] == "danger"
    assert attachment["text"].splitlines() == [
        summary("ServiceNotReady"),
        "What ServiceNotReady means.",
        "docs/runbooks.md#servicenotready",
        f"Over: {summary('ServiceDown')}",
    ]
    for path in HOOKS:
        told.hook(path, job, {"ServiceDown": "resolved", "ServiceNotReady": "firing"})

    told.post(alert("ServiceNotReady", job, over=True))
    told.mailed(f"RESOLVED page: ServiceNotReady ({job})")


def test_an_alert_of_several_series_is_named_once(told: Told) -> None:
    job = "with-two-series"
    series = [alert("RedisFallbackActive", job) for _ in range(2)]
    for use, one in zip(("limits", "log"), series, strict=True):
        one["labels"]["use"] = use
    told.post(*series)
    told.hook(LOG, job, {"RedisFallbackActive": "firing"})
    title = f"FIRING ticket: RedisFallbackActive ({job})"
    twice = f"{summary('RedisFallbackActive')}\nWhat RedisFallbackActive means.\n" + (
        "docs/runbooks.md#redisfallbackactive\n"
    )
    told.slack(title, text=2 * twice)


def test_the_heartbeat_reaches_its_watcher_alone(told: Told) -> None:
    told.post(alert("Watchdog", "of-the-heartbeat"))
    names = {"Watchdog": "firing"}
    assert told.hook(HEARTBEAT, "of-the-heartbeat", names)["receiver"] == "heartbeat"
    # What comes after it has come: were it for them too, it would be there.
    told.post(alert("AuthAttack", "after-the-heartbeat"))
    title = "FIRING page: AuthAttack (after-the-heartbeat)"
    told.slack(title)
    told.mailed(title)
    for path in HOOKS:
        told.hook(path, "after-the-heartbeat", {"AuthAttack": "firing"})
    others = [post.content for post in told.http.posts.items if post.path != HEARTBEAT]
    assert "Watchdog" not in json.dumps(others)
    assert not [mail.subject for mail in told.mail.mails.items if "Watchdog" in mail.html]


@contextmanager
def nobody_answers(told: Told) -> Iterator[None]:
    told.http.hangs_up_on |= {SLACK, WEBHOOK}
    told.mail.refuses = True
    try:
        yield
    finally:
        told.http.hangs_up_on.clear()
        told.mail.refuses = False


def test_no_secret_is_shown_even_where_nothing_can_be_delivered(told: Told) -> None:
    job = "not-delivered"
    with nobody_answers(told):
        told.post(alert("ServiceDown", job))
        for integration in ("slack[0]", "webhook[1]", "email[0]"):
            log = told.logged(f"integration={integration}", "err=")
    # Tried again until they are there.
    title = f"FIRING page: ServiceDown ({job})"
    told.mailed(title)

    status = told.alertmanager.json("/api/v2/status")
    shown = [log, status["config"]["original"], told.alertmanager.get("/metrics").decode()]
    assert all("the-password" not in text and "the-token-of-slack" not in text for text in shown)
    assert "<secret>" in status["config"]["original"]
    version = tuple(int(part) for part in status["versionInfo"]["version"].split(".")[:2])
    if version >= HIDES_WEBHOOKS:
        assert all("the-token" not in text for text in shown)


def port_or_skip(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            pytest.skip(f"NOT TESTED: nobody can listen on port {port} here: {error}")
    return port


@pytest.mark.parametrize("port", [None, 25], ids=["any port", "port 25"])
def test_a_mail_server_without_tls_gets_neither_mail_nor_password(
    tmp_path: Path, port: int | None
) -> None:
    smtp_port = port_or_skip(port) if port else None
    with running_alertmanager(tmp_path, smtp_port, tls="none") as told:
        told.post(alert("ServiceDown", "in-the-clear"))
        told.logged("integration=email[0]", "STARTTLS")
        told.hook(LOG, "in-the-clear", {"ServiceDown": "firing"})  # the others are told
    assert told.mail.logins == []
    assert told.mail.mails.items == []


def test_mail_goes_to_port_465_where_all_is_tls(tmp_path: Path) -> None:
    with running_alertmanager(tmp_path, port_or_skip(465), tls="from the start") as told:
        told.post(alert("ServiceDown", "all-tls"))
        mail = told.mailed("FIRING page: ServiceDown (all-tls)")
    assert (mail.recipients, mail.encrypted) == (RECIPIENTS, True)
    assert told.mail.logins == [("mailer", PASSWORD)]
