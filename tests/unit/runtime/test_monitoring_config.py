"""The configuration of Prometheus and Alertmanager, made out of the committed one."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.runtime.monitoring.alertmanager_config import (
    ALERT_LOG_URL,
    Receivers,
    render_alertmanager,
)
from product_classifier.runtime.monitoring.prometheus_config import job_names, render_prometheus

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "monitoring" / "prometheus" / "prometheus.yml"
ALERTMANAGER = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"
LOG = "http://127.0.0.1:9094/"
MAIL = {
    "alert_email_to": "ops@example.org, night@example.org",
    "alert_email_from": "alerts@example.org",
    "alert_smtp_address": "mail.example.org:587",
}
ACCOUNT = {
    "alert_smtp_user": "alerts",
    "alert_smtp_password": 'it\'s {{ a }} "password"',
}
ALL = {
    **MAIL,
    **ACCOUNT,
    "alert_webhook_url": "https://example.org/hook?token=t0ken",
    "alert_heartbeat_url": "https://beat.example.org/p1ng",
    "alert_slack_url": "https://slack.example.org/services/s3cret",
    "alert_slack_channel": "#on-call",
}


def receivers(**values: str) -> Receivers:
    return Receivers.from_settings(Settings(_env_file=None, **values), LOG)


def heartbeat(made: dict[str, Any]) -> dict[str, Any]:
    (found,) = (one for one in made["receivers"] if one["name"] == "heartbeat")
    return dict(found)


def told_of_alerts(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in made["receivers"] if one["name"] != "heartbeat"]


def test_the_embedded_prometheus_has_the_same_jobs_rules_and_times(tmp_path: Path) -> None:
    base = yaml.safe_load(PROMETHEUS.read_text())
    text = render_prometheus(PROMETHEUS, tmp_path / "tar gets", tmp_path, "127.0.0.1:4093")
    made = yaml.safe_load(text)
    assert made["global"] == base["global"] | {"scrape_interval": "10s"}
    assert made["rule_files"] == [str(tmp_path / "*.yml")]
    assert "alertmanager:9093" not in text
    assert "127.0.0.1:4093" in str(made["alerting"])
    jobs = [job["job_name"] for job in made["scrape_configs"]]
    assert jobs == job_names(PROMETHEUS)
    assert set(jobs) == {
        *("prometheus", "alertmanager", "node"),
        *("fastapi", "auth", "pipeline", "airflow"),
        "gateway",  # nobody writes its file: it is in containers alone
    }
    for job in made["scrape_configs"]:
        discovery = {name for name in job if name.endswith(("_sd_configs", "static_configs"))}
        assert discovery == {"file_sd_configs"}
        (found,) = job["file_sd_configs"]
        assert found["files"] == [str(tmp_path / "tar gets" / f"{job['job_name']}.json")]


@pytest.mark.parametrize("content", ["", "[]", "global: {}", "scrape_configs: 3", "a: [", None])
def test_a_configuration_that_is_none_is_said_with_its_path(
    tmp_path: Path, content: str | None
) -> None:
    base = tmp_path / "prometheus.yml"
    if content is not None:
        base.write_text(content)
    with pytest.raises(ConfigurationError, match=r"prometheus\.yml"):
        render_prometheus(base, tmp_path, tmp_path, "127.0.0.1:9093")


def test_without_receivers_alerts_go_to_the_log_alone() -> None:
    made = yaml.safe_load(render_alertmanager(ALERTMANAGER, receivers()))
    base = yaml.safe_load(ALERTMANAGER.read_text())
    assert made["route"] == base["route"]
    assert made["inhibit_rules"] == base["inhibit_rules"]
    assert heartbeat(made) == {"name": "heartbeat"}
    for receiver in told_of_alerts(made):
        assert set(receiver) == {"name", "webhook_configs"}
        assert [hook["url"] for hook in receiver["webhook_configs"]] == [LOG]
    assert receivers().names() == ["log"]


def test_in_the_stack_nothing_is_changed_but_for_receivers() -> None:
    chosen = Receivers.from_settings(Settings(_env_file=None))
    made = yaml.safe_load(render_alertmanager(ALERTMANAGER, chosen))
    assert made == yaml.safe_load(ALERTMANAGER.read_text())


def test_every_receiver_tells_all_that_are_set() -> None:
    made = yaml.safe_load(render_alertmanager(ALERTMANAGER, receivers(**ALL)))
    assert {receiver["name"] for receiver in told_of_alerts(made)} == {"page", "ticket"}
    for receiver in told_of_alerts(made):
        hooks = [hook["url"] for hook in receiver["webhook_configs"]]
        assert hooks == [LOG, ALL["alert_webhook_url"]]
        (slack,) = receiver["slack_configs"]
        assert slack["api_url"] == ALL["alert_slack_url"]
        assert slack["channel"] == "#on-call"
        (mail,) = receiver["email_configs"]
        assert mail["auth_password"] == ALL["alert_smtp_password"]
        assert mail["require_tls"] is True
        configured = [*receiver["webhook_configs"], slack, mail]
        assert all(one["send_resolved"] is True for one in configured)
    assert receivers(**ALL).names() == ["log", "webhook", "Slack", "e-mail"]


def test_the_heartbeat_goes_to_its_own_watcher_alone() -> None:
    url = "https://beat.example.org/p1ng"
    text = render_alertmanager(ALERTMANAGER, receivers(alert_heartbeat_url=url))
    made = yaml.safe_load(text)
    assert heartbeat(made)["webhook_configs"] == [{"url": url, "send_resolved": False}]
    assert text.count(url) == 1
    assert receivers(alert_heartbeat_url=url).names() == ["log"]  # it tells nobody of any alert
    everything = heartbeat(yaml.safe_load(render_alertmanager(ALERTMANAGER, receivers(**ALL))))
    assert everything == heartbeat(made)


def test_no_secret_shows_in_the_text_of_receivers() -> None:
    text = repr(receivers(**ALL))
    assert not any(part in text for part in ("t0ken", "s3cret", "p1ng", "password\\"))


@pytest.mark.parametrize(
    ("port", "account", "demanded"),
    [
        (25, {}, False),
        (25, ACCOUNT, True),  # a password goes nowhere in clear
        (465, {}, False),  # all is TLS there, so nobody offers it
        (465, ACCOUNT, False),
        (587, {}, True),
        (2525, ACCOUNT, True),
    ],
)
def test_tls_is_demanded_of_a_mail_server_where_it_can_be_offered(
    port: int, account: dict[str, str], demanded: bool
) -> None:
    chosen = receivers(**{**MAIL, "alert_smtp_address": f"localhost:{port}"}, **account)
    made = yaml.safe_load(render_alertmanager(ALERTMANAGER, chosen))
    (mail,) = told_of_alerts(made)[0]["email_configs"]
    assert mail["require_tls"] is demanded
    assert ("auth_password" in mail) == bool(account)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        *[({k: v for k, v in MAIL.items() if k != name}, name) for name in MAIL],
        ({**MAIL, "alert_smtp_user": "alerts"}, "alert_smtp_password"),
        ({**MAIL, "alert_smtp_password": "x"}, "alert_smtp_user"),
        ({"alert_slack_channel": "#ops"}, "alert_slack_url"),
    ],
)
def test_half_a_receiver_is_refused_with_what_is_missing(
    values: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named.upper()):
        receivers(**values)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "receivers: []",
        "receivers: [{name: page}]",
        "receivers: [{name: heartbeat}, {name: page}]",
        "receivers: [{webhook_configs: [{url: 'http://alert-log:9094/'}]}]",
        "receivers: [{name: a, webhook_configs: []}]",
    ],
)
def test_a_receiver_that_forgets_the_log_is_refused(tmp_path: Path, content: str) -> None:
    base = tmp_path / "alertmanager.yml"
    base.write_text(content)
    with pytest.raises(ConfigurationError, match=ALERT_LOG_URL):
        render_alertmanager(base, receivers())


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")
@pytest.mark.parametrize("values", [{}, ALL], ids=["the log alone", "everything"])
def test_alertmanager_takes_what_is_made(tmp_path: Path, values: dict[str, str]) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(render_alertmanager(ALERTMANAGER, receivers(**values)))
    done = subprocess.run(["amtool", "check-config", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ({}, "docs/runbooks.md#down"),
        (
            {"alert_runbooks_url": 'https://h/o/é$1"x"/runbooks.md?ref=main'},
            'https://h/o/é$1"x"/runbooks.md?ref=main#down',
        ),
    ],
    ids=["the file", "a page"],
)
@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")
def test_slack_is_given_the_runbook_where_it_can_be_read(
    tmp_path: Path, page: dict[str, str], link: str
) -> None:
    chosen = receivers(alert_slack_url=ALL["alert_slack_url"], **page)
    made = yaml.safe_load(render_alertmanager(ALERTMANAGER, chosen))
    (slack,) = told_of_alerts(made)[0]["slack_configs"]
    annotations = {"summary": "s", "description": "d", "runbook_url": "docs/runbooks.md#down"}
    alerts = [
        {"status": "firing", "labels": {}, "annotations": annotations},
        {"status": "firing", "labels": {}, "annotations": {"summary": "of amtool"}},
    ]
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"alerts": alerts}))
    done = subprocess.run(
        [
            *("amtool", "template", "render", "--template.glob=/dev/null"),
            *(f"--template.data={data}", f"--template.text={slack['text']}"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == ["s", "d", link, "of amtool"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_what_is_made(tmp_path: Path) -> None:
    path = tmp_path / "prometheus.yml"
    rules = ROOT / "monitoring" / "prometheus" / "rules"
    path.write_text(render_prometheus(PROMETHEUS, tmp_path, rules, "127.0.0.1:9093"))
    done = subprocess.run(
        ["promtool", "check", "config", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule files found" in done.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alert_webhook_url", "example.org/hook"),
        ("alert_slack_url", "ftp://example.org"),
        ("alert_heartbeat_url", "example.org/ping"),
        ("alert_runbooks_url", "docs/runbooks.md"),
        ("alert_email_to", "nobody"),
        ("alert_smtp_address", "mail.example.org"),
        ("prometheus_retention", "15"),
        ("pipeline_schedule", "every day"),
        ("pipeline_stale_after_hours", "0"),
        ("monitoring", "yes"),
    ],
)
def test_a_setting_that_can_not_be_meant_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(_env_file=None, **{name: value})
