"""Both services as real processes, as a user starts them; for integration tests and benchmarks."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from unused_ports import free_port

ADMIN, ADMIN_PASSWORD = "admin", "correct-horse-battery-1"
USER, USER_PASSWORD = "integrator", "staple-battery-horse-2"
START_SECONDS = 180
UNLIMITED = {  # what else would stop a test or a benchmark that sends much
    "PREDICT_RATE_LIMIT": "10000000/minute",
    "PREDICT_BATCH_RATE_LIMIT": "10000000/minute",
    "ANONYMOUS_RATE_LIMIT": "10000000/minute",
}


def prepare_workspace(root: Path, *bundles: Path) -> Workspace:
    """Makes a workspace that can only serve: the bundles as releases, the first one champion."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    workspace = Workspace(root)
    releases = [publish_release(workspace, bundle) for bundle in bundles]
    point_champion(workspace, releases[0].release_id, "for a test")
    return workspace


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Parses the body."""
        return json.loads(self.body)


@dataclass
class ServiceProcess:
    """One running service."""

    name: str
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path
    ready_after: float = 0.0  # seconds from start to the first 200 of /ready

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = None,
        timeout: float = 60,
    ) -> Answer:
        """Sends one request on a connection of its own."""
        sent = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        started = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            with suppress(
                BrokenPipeError, ConnectionResetError
            ):  # refused before the body: read why
                connection.request(method, path, body, sent)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return Answer(response.status, response.headers, content, time.monotonic() - started)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Returns when `/ready` answers 200; fails with the log when it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/ready", timeout=10).status == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{self.name} is not ready: {self.log.read_text()[-3000:]}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 90) -> int:
        """Sends a signal and waits for the end; gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a stopped process would never hear it
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"{self.name} did not stop: {self.log.read_text()[-3000:]}"
            ) from None


def start_process(
    name: str,
    command: list[str],
    folder: Path,
    port: int,
    environment: Mapping[str, str] | None = None,
) -> ServiceProcess:
    """Starts a program and waits until it is ready; nothing of this process's settings reaches it."""
    taken = {field_name.upper() for field_name in Settings.model_fields}
    inherited = {key: value for key, value in os.environ.items() if key not in taken}
    log = folder / f"{name}.log"
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    service = ServiceProcess(name, port, process, log)
    try:
        service.wait_ready()
    except BaseException:
        process.kill()
        process.wait()
        raise
    service.ready_after = time.monotonic() - started
    return service


@dataclass
class Services:
    """`auth` and `serve` on free ports over one workspace; each can be stopped and started again."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)
    auth_port: int = field(default_factory=free_port)
    serve_port: int = field(default_factory=free_port)
    auth: ServiceProcess = field(init=False)
    serve: ServiceProcess = field(init=False)

    @property
    def environment(self) -> dict[str, str]:
        """What both services are told."""
        return {
            "ADMIN_USER": ADMIN,
            "ADMIN_PASSWORD": ADMIN_PASSWORD,
            "TEST_USER": USER,
            "TEST_USER_PASSWORD": USER_PASSWORD,
            "AUTH_PORT": str(self.auth_port),
            "SERVE_PORT": str(self.serve_port),
            "AUTH_URL": f"http://127.0.0.1:{self.auth_port}",
            **UNLIMITED,
            **self.settings,
        }

    def start_auth(self) -> ServiceProcess:
        """Starts `auth`."""
        self.auth = self._start("auth", self.auth_port)
        return self.auth

    def start_serve(self) -> ServiceProcess:
        """Starts `serve`."""
        self.serve = self._start("serve", self.serve_port)
        return self.serve

    def _start(self, name: str, port: int) -> ServiceProcess:
        command = [sys.executable, "-m", "product_classifier", name]
        return start_process(name, command, self.root, port, self.environment)

    def token(self, user: str = ADMIN, password: str = ADMIN_PASSWORD) -> str:
        """Signs in at `auth`; gives an access token."""
        form = urllib.parse.urlencode({"username": user, "password": password})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.auth.request("POST", "/token", form, headers)
        assert answer.status == 200, answer.body
        return str(answer.json()["access_token"])


@contextmanager
def running_services(
    root: Path, settings: Mapping[str, str] | None = None, *, auth_only: bool = False
) -> Iterator[Services]:
    """Starts the services in a prepared workspace; stops them at the end, whatever happened."""
    services = Services(root, dict(settings or {}))
    started: list[str] = []
    try:
        services.start_auth()
        started.append("auth")
        if not auth_only:
            services.start_serve()
            started.append("serve")
        yield services
    finally:
        for name in reversed(started):
            service: ServiceProcess = getattr(services, name)
            service.process.kill()
            service.process.wait()
