"""The programs of the monitoring as child processes of a test, and a catcher for what Alertmanager sends."""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from handler_server import handler_server
from product_classifier.runtime.services import Service

START_SECONDS = 180
LOG_TAIL = 2500


@dataclass
class Program:
    """One running program that answers HTTP on a port of 127.0.0.1."""

    name: str
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, timeout: float = 60) -> bytes:
        """Reads a page; fails where it is no 200."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=timeout) as answer:
            return bytes(answer.read())

    def json(self, path: str) -> Any:
        """Reads a page of JSON."""
        return json.loads(self.get(path))

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:]

    def wait_until_answering(self, path: str, seconds: float = START_SECONDS) -> None:
        """Returns when a page answers 200; fails with the log when the program ends or does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError):
                self.get(path, timeout=10)
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.name} does not answer: {self.tail()}")

    def stop(self) -> None:
        """Ends it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_program(service: Service, logs: Path, ready: str) -> Iterator[Program]:
    """Starts a program of the monitoring, waits for its page `ready`, and ends it with the block."""
    assert service.port is not None
    log = logs / f"{service.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            service.command,
            cwd=service.directory,
            env={**service.machine, **service.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    program = Program(service.name, service.port, process, log)
    try:
        program.wait_until_answering(ready)
        yield program
    finally:
        program.stop()


@dataclass(frozen=True)
class Notice:
    """One alert of one notification."""

    received: float  # time.monotonic()
    receiver: str
    status: str  # firing or resolved
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]

    @property
    def severity(self) -> str:
        """`page` or `ticket`."""
        return self.labels.get("severity", "")


@dataclass
class WebhookCatcher:
    """Takes Alertmanager's notifications and keeps them."""

    port: int = 0
    notices: list[Notice] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition, repr=False)

    @property
    def url(self) -> str:
        """Where Alertmanager sends to."""
        return f"http://127.0.0.1:{self.port}/"

    def take(self, content: dict[str, Any]) -> None:
        """Notes one notification."""
        received = time.monotonic()
        with self._arrived:
            for alert in content["alerts"]:
                one = (alert["status"], alert["labels"], alert["annotations"])
                self.notices.append(Notice(received, content["receiver"], *one))
            self._arrived.notify_all()

    def wait_for(
        self, name: str, status: str = "firing", *, since: float = 0.0, seconds: float = 100.0
    ) -> Notice:
        """Waits for a notice that came after `since`; fails with the list of those that came."""

        def found() -> Notice | None:
            fitting = (
                one
                for one in self.notices
                if one.name == name and one.status == status and one.received >= since
            )
            return next(fitting, None)

        with self._arrived:
            self._arrived.wait_for(lambda: found() is not None, seconds)
            notice = found()
            came = [(one.name, one.status) for one in self.notices]
        if notice is None:
            raise AssertionError(f"No {status} {name} within {seconds:.0f} s. Came: {came}")
        return notice

    def names(self, status: str = "firing", severity: str = "", since: float = 0.0) -> set[str]:
        """Names of the alerts that came."""
        with self._arrived:
            return {
                one.name
                for one in self.notices
                if one.status == status and one.received >= since and severity in ("", one.severity)
            }


@contextmanager
def webhook_catcher() -> Iterator[WebhookCatcher]:
    """Listens on a free port of 127.0.0.1."""
    catcher = WebhookCatcher()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            catcher.take(json.loads(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Stays silent."""

    with handler_server(Handler) as port:
        catcher.port = port
        yield catcher
