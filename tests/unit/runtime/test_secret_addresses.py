"""Receivers' addresses: what an old Alertmanager would show of them is said, and hidden where logs are shown."""

import pytest
import typer
from pydantic import SecretStr
from typer.testing import CliRunner

from product_classifier.commands import runtime as commands
from product_classifier.core.settings import get_settings
from product_classifier.runtime.monitoring import programs, secret_addresses
from product_classifier.runtime.monitoring.programs import program_version
from product_classifier.runtime.monitoring.secret_addresses import check_addresses, hide_addresses

WEBHOOK = "https://me:the-password@hooks.example.org/services/the-token?room=a%20b&x=1"
# As Alertmanager 0.25 wrote it.
LINE = (
    r'integration=webhook[0] msg="Notify attempt failed" err="Post \"https://me:***@hooks.example.org'
    r'/services/the-token?room=a%20b&x=1\": connection refused"'
)


def told(settings, **addresses):
    return settings.model_copy(update={name: SecretStr(text) for name, text in addresses.items()})


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes an Alertmanager that says this of its version."""

    def make(said, *, to=1):
        path = tmp_path / "alertmanager"
        path.write_text(f"#!/bin/sh\necho '{said}' >&{to}\n")
        path.chmod(0o755)
        monkeypatch.setattr(secret_addresses, "find_program", lambda _: str(path))
        return str(path)

    return make


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("alertmanager, version 0.25.0 (branch: debian/sid, revision: 0.25.0-1+b4)", (0, 25, 0)),
        ("alertmanager, version 0.28.1 (branch: HEAD, revision: b2099eaa2c)", (0, 28, 1)),
        ("no such option", None),
    ],
)
def test_the_version_is_read_off_what_the_program_says(program, said, version):
    assert program_version(program(said)) == version
    assert program_version(program(said, to=2)) == version


def test_a_program_that_can_not_be_asked_has_no_version(tmp_path, monkeypatch):
    assert program_version(str(tmp_path / "none")) is None
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(programs, "_VERSION_TIMEOUT_SECONDS", 0.05)
    assert program_version(str(slow)) is None


def test_an_alertmanager_that_shows_an_address_is_found(program, settings):
    program("alertmanager, version 0.25.0 (branch: HEAD)")
    chosen = told(settings, alert_webhook_url=WEBHOOK, alert_heartbeat_url="https://beat/token")
    (finding,) = check_addresses(chosen)
    assert finding.level == "warn"
    for expected in ("0.25.0", "ALERT_WEBHOOK_URL and ALERT_HEARTBEAT_URL", "9093", "0.26"):
        assert expected in finding.message
    assert "token" not in finding.message


@pytest.mark.parametrize("version", ["0.26.0", "0.28.1", "1.0.0"])
def test_one_that_hides_them_is_none(program, settings, version):
    program(f"alertmanager, version {version} (branch: HEAD)")
    assert list(check_addresses(told(settings, alert_webhook_url=WEBHOOK))) == []


def test_without_an_address_or_a_program_nothing_is_said(program, settings, monkeypatch):
    program("alertmanager, version 0.25.0 (branch: HEAD)")
    # It hides Slack's.
    assert list(check_addresses(told(settings, alert_slack_url="https://slack/token"))) == []
    monkeypatch.setattr(secret_addresses, "find_program", lambda _: None)
    assert list(check_addresses(told(settings, alert_webhook_url=WEBHOOK))) == []


def test_a_log_is_shown_without_the_addresses(settings):
    lines = [LINE, "another line, of https://hooks.example.org/docs"]
    shown = list(hide_addresses(lines, told(settings, alert_webhook_url=WEBHOOK)))
    assert shown[0] == (
        r'integration=webhook[0] msg="Notify attempt failed" '
        r'err="Post \"https://me:***@<ALERT_WEBHOOK_URL>\": connection refused"'
    )
    assert shown[1] == lines[1]
    assert list(hide_addresses(lines, settings)) == lines


@pytest.fixture
def checkout(layout, monkeypatch):
    monkeypatch.chdir(layout.root)
    monkeypatch.setenv("PIPELINE_RUNTIME", "process")
    monkeypatch.setenv("ALERT_WEBHOOK_URL", WEBHOOK)
    get_settings.cache_clear()
    yield layout
    get_settings.cache_clear()


def test_the_command_logs_hides_them(checkout):
    (checkout.logs / "alertmanager.log").write_text(f"{LINE}\n")
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, ["logs", "alertmanager"])
    assert result.exit_code == 0, result.output
    assert "<ALERT_WEBHOOK_URL>" in result.output
    assert "the-token" not in result.output
