"""`product-classifier alert-log`: the receiver that is always there, a line of log for each notification."""

import json
import logging
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from product_classifier.core.errors import ConfigurationError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 2_000_000  # Alertmanager groups; a thousand alerts are less
MAX_ALERTS = 50  # written out of one notification; the rest is counted
READ_SECONDS = 10
_LENGTH_DIGITS = 10  # Python makes no number of thousands of digits
_LABELS = ("alertname", "severity", "job", "instance", "dag", "task", "feature", "stage")


def _shown(alert: dict[str, Any]) -> dict[str, Any]:
    labels, annotations = alert.get("labels") or {}, alert.get("annotations") or {}
    if not isinstance(labels, dict) or not isinstance(annotations, dict):
        raise ValueError("expected objects as `labels` and `annotations`")
    content = {name: labels[name] for name in _LABELS if name in labels}
    content["status"] = alert.get("status")
    for name in ("summary", "description", "runbook_url"):
        if annotations.get(name):
            content[name] = annotations[name]
    content["since"] = alert.get("startsAt")
    if alert.get("status") == "resolved":
        content["until"] = alert.get("endsAt")
    return content


def read_notification(body: bytes) -> tuple[str, dict[str, Any]]:
    """Turns what Alertmanager posts into a message and the fields of a log line.

    Raises:
        ValueError: it is no notification of Alertmanager's webhook, version 4.
    """
    content = json.loads(body)
    alerts = content.get("alerts") if isinstance(content, dict) else None
    if not isinstance(alerts, list) or not all(isinstance(alert, dict) for alert in alerts):
        raise ValueError("expected an object with a list `alerts`")
    shown = [_shown(alert) for alert in alerts[:MAX_ALERTS]]
    names = sorted({str(alert.get("alertname", "?")) for alert in shown})
    status, left_out = str(content.get("status")), content.get("truncatedAlerts") or 0
    if not isinstance(left_out, int):
        raise ValueError("expected a whole number as `truncatedAlerts`")
    fields = {
        "status": status,
        "receiver": content.get("receiver"),
        "alerts": shown,
        "alerts_left_out": len(alerts) - len(shown) + left_out,
    }
    return f"Alert {status}: {', '.join(names) or 'none'}.", fields


class _Handler(BaseHTTPRequestHandler):
    timeout = READ_SECONDS
    server_version, sys_version = "alert-log", ""

    def do_GET(self) -> None:
        """Says that it is there."""
        self._answer(HTTPStatus.OK if self.path == "/health" else HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Writes a notification down."""
        length = self.headers.get("Content-Length") or ""
        if not (length.isascii() and length.isdigit()):
            self._answer(HTTPStatus.LENGTH_REQUIRED)
        elif len(length) > _LENGTH_DIGITS or int(length) > MAX_BODY_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._take(self.rfile.read(int(length)))

    def _take(self, body: bytes) -> None:
        try:
            message, fields = read_notification(body)
        except (ValueError, RecursionError) as error:
            # 4xx: Alertmanager does not send it again, and counts it as failed.
            logger.error("A notification can't be read: %s.", error)
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        logger.log(
            logging.WARNING if fields["status"] == "firing" else logging.INFO,
            "%s",
            message,
            extra=fields,
        )
        self._answer(HTTPStatus.OK)

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Leaves out the lines about requests: each would double its notification's."""


class AlertLog(ThreadingHTTPServer):
    """Listens for Alertmanager's notifications and logs them."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        # Whatever LOG_LEVEL says: to be written is what notifications come here for.
        logger.setLevel(logging.INFO)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, socket.gaierror) as error:
            raise ConfigurationError(f"alert-log can't listen on {host}:{port}: {error}") from error
