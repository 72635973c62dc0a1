"""A real MLflow server, once per session, and a proxy that misbehaves in front of it."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from containers.dagshub.hub import Hub, HubServer, make_bucket, s3_server
from product_classifier.core.workspace import Workspace
from unused_ports import free_port

from .dagshub_checkout import EXPIRED, FIRST, SECOND, STEPS, THIRD, TOKEN, USER, Checkout
from .evaluated import Evaluated, evaluate

START_SECONDS = 300
USERNAME, PASSWORD = "admin", "a-long-tracking-password-1"


@dataclass
class MLflowServer:
    """A running `mlflow server`."""

    uri: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def wait(self) -> None:
        """Returns when it answers; fails with its log when it does not."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=10):
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                threading.Event().wait(0.2)
        raise AssertionError(f"mlflow server did not start: {self.log.read_text()[-3000:]}")


def start_mlflow(folder: Path, *, auth: bool = False) -> MLflowServer:
    folder.mkdir(parents=True)
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("mlflow")),
        "server",
        "--host=127.0.0.1",
        f"--port={port}",
        "--workers=1",
        f"--backend-store-uri=sqlite:///{folder / 'mlflow.db'}",
        f"--artifacts-destination={folder / 'artifacts'}",
    ]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if auth:
        (folder / "auth.ini").write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = sqlite:///{folder / 'auth.db'}\n"
            f"admin_username = {USERNAME}\nadmin_password = {PASSWORD}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        command.append("--app-name=basic-auth")
        environment["MLFLOW_AUTH_CONFIG_PATH"] = str(folder / "auth.ini")
        environment["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "only-for-this-test"
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    return MLflowServer(f"http://127.0.0.1:{port}", process, log)


def stop_mlflow(server: MLflowServer) -> None:
    # Its workers are children of it: the whole session of processes has to go.
    os.killpg(server.process.pid, 9)
    server.process.wait()


@pytest.fixture(scope="session")
def mlflow_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, MLflowServer]]:
    """An open server and one with basic auth; started together, since each takes long."""
    folder = tmp_path_factory.mktemp("mlflow")
    with ExitStack() as stack:
        servers = {}
        for name in ("open", "basic-auth"):
            servers[name] = start_mlflow(folder / name, auth=name != "open")
            stack.callback(stop_mlflow, servers[name])
        for server in servers.values():
            server.wait()
        yield servers


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_servers: dict[str, MLflowServer]) -> str:
    return mlflow_servers["open"].uri


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits long for MLflow: on a busy machine an answer takes longer than a user should wait for one that is away."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setattr("product_classifier.tracking.server._ANSWER_SECONDS", 180.0)


@dataclass
class Proxy:
    """Passes requests on, but for what it is told to spoil."""

    target: str
    cut_after: int | None = None  # requests of an upload; later ones get a closed connection
    answers: dict[str, int] = field(default_factory=dict)  # part of the path → status
    seen: list[str] = field(default_factory=list)
    uri: str = ""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.seen.append(f"{self.command} {self.path}")
            if proxy.cut_after is not None and len(proxy.seen) > proxy.cut_after:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            for part, status in proxy.answers.items():
                if part in self.path:
                    self._answer(status, [], b"not here")
                    return
            host, _, port = proxy.target.removeprefix("http://").partition(":")
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            with closing(http.client.HTTPConnection(host, int(port), timeout=120)) as upstream:
                upstream.request(self.command, self.path, body, headers)
                response = upstream.getresponse()
                content = response.read()
            kept = [("Content-Type", response.headers.get("Content-Type", "text/plain"))]
            self._answer(response.status, kept, content)

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

        def log_message(self, format: str, *args: Any) -> None:
            """Stays silent."""

    return Handler


@pytest.fixture
def proxy_to() -> Iterator[Callable[[str], Proxy]]:
    """Starts a proxy in front of a server."""
    started: list[ThreadingHTTPServer] = []

    def start(target: str) -> Proxy:
        proxy = Proxy(target)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
        server.daemon_threads = True
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy.uri = f"http://127.0.0.1:{server.server_address[1]}"
        return proxy

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def hub(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The stand-in for DagsHub, with a few empty repositories."""
    with s3_server(tmp_path_factory.mktemp("s3"), free_port()) as s3:
        hub = Hub(
            mlflow_uri, s3, {TOKEN: USER}, expired={EXPIRED}, repositories={FIRST, SECOND, THIRD}
        )
        for slug in hub.repositories:
            make_bucket(hub, slug)
        server = HubServer(hub, "127.0.0.1", 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()


@pytest.fixture(scope="session")
def evaluated(trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The test split as training evaluated it and as batch prediction scores it."""
    return evaluate(trained_workspace, tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="session")
def pipeline(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which everything has run once, with nothing in its way."""
    checkout = Checkout(tmp_path_factory.mktemp("first") / "work space", hub, FIRST)
    for step in STEPS:
        checkout.must(step)
    return checkout
