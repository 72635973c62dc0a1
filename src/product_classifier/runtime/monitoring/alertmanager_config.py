"""Alertmanager's configuration: the committed routes, with the receivers that the settings name."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings

# Where alert-log listens in the container stack, and what the committed configuration says.
ALERT_LOG_URL = "http://alert-log:9094/"
# The receiver of the alert that always fires: a watcher outside, or nobody; never the log.
HEARTBEAT = "heartbeat"
_PLAIN_SMTP_PORT, _TLS_SMTP_PORT = "25", "465"
_HEADER = "# Made from {base} at each start; private: it holds the receivers' secrets.\n"
# One message is about a whole group: it names each of its alerts, while one fires the firing ones. Series of one alert
# stand beside each other and are named once.
_TITLE = (
    "{{ $alerts := .Alerts.Firing }}{{ if not $alerts }}{{ $alerts = .Alerts.Resolved }}{{ end }}"
    "{{ .Status | toUpper }} {{ .Receiver }}: "
    '{{ $last := "" }}{{ range $alerts }}{{ if ne .Labels.alertname $last }}'
    "{{ if $last }}, {{ end }}{{ .Labels.alertname }}{{ $last = .Labels.alertname }}{{ end }}{{ end }}"
    "{{ with .CommonLabels.job }} ({{ . }}){{ end }}"
)
_RUNBOOK = ".Annotations.runbook_url"
_SLACK_TEXT = (
    "{{{{ range .Alerts.Firing }}}}{{{{ .Annotations.summary }}}}\n{{{{ .Annotations.description }}}}\n"
    "{{{{ {runbook} }}}}\n{{{{ end }}}}"
    "{{{{ range .Alerts.Resolved }}}}Over: {{{{ .Annotations.summary }}}}\n{{{{ end }}}}"
)


def _slack_text(runbooks: str | None) -> str:
    if runbooks is None:
        return _SLACK_TEXT.format(runbook=_RUNBOOK)
    # Strings are written as in JSON there too; in the replacement `$` stands for a group.
    page = json.dumps(runbooks.replace("$", "$$"))
    return _SLACK_TEXT.format(runbook=f'reReplaceAll "^docs/runbooks[.]md" {page} {_RUNBOOK}')


@dataclass(frozen=True)
class Email:
    """Where mail about alerts goes, and over which server."""

    to: str
    sender: str
    server: str
    user: str | None = None
    password: SecretStr | None = None

    def configuration(self) -> dict[str, Any]:
        """Gives it as Alertmanager reads it."""
        content: dict[str, Any] = {
            "to": self.to,
            "from": self.sender,
            "smarthost": self.server,
            "require_tls": self._demands_starttls(),
            "send_resolved": True,
            "headers": {"Subject": _TITLE},
        }
        if self.user and self.password:
            password = self.password.get_secret_value()
            content |= {"auth_username": self.user, "auth_password": password}
        return content

    def _demands_starttls(self) -> bool:
        # On port 465 all is TLS from the first byte: no server offers it again, and Alertmanager would send nothing. On
        # port 25 mail may go in clear, but no password.
        port = self.server.rpartition(":")[2]
        return port != _TLS_SMTP_PORT and (port != _PLAIN_SMTP_PORT or self.user is not None)


def _email(settings: Settings) -> Email | None:
    to, sender, server = (
        settings.alert_email_to,
        settings.alert_email_from,
        settings.alert_smtp_address,
    )
    if not to and not sender and not server:
        return None
    if not to or not sender or not server:
        raise ConfigurationError(
            "E-mail about alerts needs ALERT_EMAIL_TO, ALERT_EMAIL_FROM and ALERT_SMTP_ADDRESS: "
            "set all three, or none."
        )
    user, password = settings.alert_smtp_user, settings.alert_smtp_password
    if bool(user) != bool(password):
        raise ConfigurationError("Set both ALERT_SMTP_USER and ALERT_SMTP_PASSWORD, or neither.")
    return Email(to, sender, server, user, password)


@dataclass(frozen=True)
class Receivers:
    """Who is told of alerts, besides the log, which always is; and who watches that alerts still come."""

    alert_log: str = ALERT_LOG_URL
    webhook: SecretStr | None = None
    slack: SecretStr | None = None
    slack_channel: str | None = None
    runbooks: str | None = None
    email: Email | None = field(default=None)
    heartbeat: SecretStr | None = None

    @classmethod
    def from_settings(cls, settings: Settings, alert_log: str = ALERT_LOG_URL) -> "Receivers":
        """Reads them from the settings.

        Raises:
            ConfigurationError: a receiver is half set; names what is missing.
        """
        if settings.alert_slack_channel and not settings.alert_slack_url:
            raise ConfigurationError("ALERT_SLACK_CHANNEL is set without ALERT_SLACK_URL.")
        return cls(
            alert_log=alert_log,
            webhook=settings.alert_webhook_url,
            slack=settings.alert_slack_url,
            slack_channel=settings.alert_slack_channel,
            runbooks=settings.alert_runbooks_url,
            email=_email(settings),
            heartbeat=settings.alert_heartbeat_url,
        )

    def names(self) -> list[str]:
        """Lists who is told, for people to read; no address."""
        found = {"webhook": self.webhook, "Slack": self.slack, "e-mail": self.email}
        return ["log", *(name for name, value in found.items() if value)]

    def configurations(self) -> dict[str, list[dict[str, Any]]]:
        """Gives the configured receivers by Alertmanager's name of their kind."""
        found: dict[str, list[dict[str, Any]]] = {}
        if self.webhook:
            url = self.webhook.get_secret_value()
            found["webhook_configs"] = [{"url": url, "send_resolved": True}]
        if self.slack:
            slack: dict[str, Any] = {
                "api_url": self.slack.get_secret_value(),
                "send_resolved": True,
                "title": _TITLE,
                "text": _slack_text(self.runbooks),
                "fallback": _TITLE,  # what a telephone shows of it
            }
            if self.slack_channel:
                slack["channel"] = self.slack_channel
            found["slack_configs"] = [slack]
        if self.email:
            found["email_configs"] = [self.email.configuration()]
        return found


def _with_heartbeat(receiver: dict[str, Any], receivers: Receivers) -> dict[str, Any]:
    if receivers.heartbeat is None:
        return receiver
    url = receivers.heartbeat.get_secret_value()
    return {**receiver, "webhook_configs": [{"url": url, "send_resolved": False}]}


def _with_receivers(receiver: dict[str, Any], receivers: Receivers) -> dict[str, Any]:
    if receiver["name"] == HEARTBEAT:
        return _with_heartbeat(receiver, receivers)
    filled = dict(receiver)
    filled["webhook_configs"] = [
        {**hook, "url": receivers.alert_log} if hook.get("url") == ALERT_LOG_URL else hook
        for hook in receiver.get("webhook_configs", [])
    ]
    for kind, configurations in receivers.configurations().items():
        filled[kind] = [*filled.get(kind, []), *configurations]
    return filled


def render_alertmanager(base: Path, receivers: Receivers) -> str:
    """Renders the committed configuration with receivers; every one of its own but the heartbeat tells all of them.

    The text holds secrets: it is for a file that its program alone can read.

    Raises:
        ConfigurationError: the base can't be read, or has no receiver that goes to the log.
    """
    try:
        content = yaml.safe_load(base.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{base} can't be read: {error}") from error
    found = content.get("receivers") if isinstance(content, dict) else None
    if not found or not all(map(_has_name_and_log, found)):
        raise ConfigurationError(
            f"{base} must have receivers, each with a name and, but for {HEARTBEAT}, "
            f"a webhook at {ALERT_LOG_URL}."
        )
    content["receivers"] = [_with_receivers(receiver, receivers) for receiver in found]
    return _HEADER.format(base=base.name) + yaml.safe_dump(content, sort_keys=False)


def _has_name_and_log(receiver: dict[str, Any]) -> bool:
    name = receiver.get("name")
    if not name or name == HEARTBEAT:
        return bool(name)
    hooks = receiver.get("webhook_configs", [])
    return any(hook.get("url") == ALERT_LOG_URL for hook in hooks)
