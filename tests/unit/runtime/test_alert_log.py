"""The receiver that is always there: one log line a notification, whatever is sent."""

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime.monitoring import alert_log
from product_classifier.runtime.monitoring.alert_log import AlertLog, read_notification

ALERT = {
    "status": "firing",
    "labels": {"alertname": "ServiceDown", "severity": "page", "job": "fastapi", "odd": "x"},
    "annotations": {"summary": "serve is down", "runbook_url": "docs/runbooks.md#servicedown"},
    "startsAt": "2026-01-02T03:04:05Z",
    "endsAt": "0001-01-01T00:00:00Z",
}
NOTIFICATION = {"version": "4", "status": "firing", "receiver": "page", "alerts": [ALERT]}


@pytest.fixture
def server() -> Iterator[AlertLog]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # as with LOG_LEVEL=ERROR
    with AlertLog("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(60)
    root.setLevel(before)


def ask(server: AlertLog, method: str, path: str, body: bytes | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_notification_is_one_line_with_what_one_needs_to_know(
    server: AlertLog, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(server, "POST", "/", json.dumps(NOTIFICATION).encode()) == 200
    (record,) = caplog.records
    assert record.getMessage() == "Alert firing: ServiceDown."
    assert record.levelno == logging.WARNING
    fields = vars(record)
    assert fields["receiver"] == "page"
    assert fields["alerts"] == [
        {
            "alertname": "ServiceDown",
            "severity": "page",
            "job": "fastapi",
            "status": "firing",
            "summary": "serve is down",
            "runbook_url": "docs/runbooks.md#servicedown",
            "since": "2026-01-02T03:04:05Z",
        }
    ]


def test_its_end_is_told_with_its_time() -> None:
    ended = {**ALERT, "status": "resolved", "endsAt": "2026-01-02T04:00:00Z"}
    message, fields = read_notification(
        json.dumps({**NOTIFICATION, "status": "resolved", "alerts": [ended]}).encode()
    )
    assert message == "Alert resolved: ServiceDown."
    assert fields["alerts"][0]["until"] == "2026-01-02T04:00:00Z"


def test_of_many_alerts_the_rest_is_counted() -> None:
    many = {**NOTIFICATION, "alerts": [ALERT] * 70, "truncatedAlerts": 5}
    fields = read_notification(json.dumps(many).encode())[1]
    assert len(fields["alerts"]) == alert_log.MAX_ALERTS
    assert fields["alerts_left_out"] == 70 - alert_log.MAX_ALERTS + 5


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"{}", b'{"alerts": 3}', b'{"alerts": [3]}', b"[" * 100_000, b"\xff"),
        *(b'{"alerts": [{"labels": 3}]}', b'{"alerts": [{"labels": "job"}]}'),
        *(b'{"alerts": [{"annotations": [1]}]}', b'{"alerts": [], "truncatedAlerts": 1e999}'),
    ],
    ids=[
        *("empty", "half", "a list", "none", "a number", "of numbers", "deep", "no text"),
        *("labels a number", "labels a text", "annotations a list", "endless"),
    ],
)
def test_what_is_no_notification_is_refused_and_said(
    server: AlertLog, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    assert ask(server, "POST", "/", body) == 400
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert ask(server, "POST", "/", json.dumps(NOTIFICATION).encode()) == 200


def test_what_is_too_large_is_refused_unread(
    server: AlertLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_log, "MAX_BODY_BYTES", 100)
    assert ask(server, "POST", "/", b"x" * 101) == 413


def test_a_body_without_a_length_is_refused(server: AlertLog) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=60) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert b" 411 " in caller.recv(200)


@pytest.mark.parametrize(
    ("length", "status"), [("\u00b2", 411), ("-1", 411), ("9" * 5000, 413)], ids=["²", "-1", "huge"]
)
def test_an_odd_length_is_answered(server: AlertLog, length: str, status: int) -> None:
    request = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=60) as caller:
        caller.sendall(request.encode("latin-1"))
        assert f" {status} ".encode() in caller.recv(200)


def test_it_says_that_it_is_there(server: AlertLog) -> None:
    assert ask(server, "GET", "/health") == 200
    assert ask(server, "GET", "/other") == 404


def test_a_taken_port_is_said() -> None:
    with AlertLog("127.0.0.1", 0) as first:
        port = first.server_address[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
            AlertLog("127.0.0.1", port)
