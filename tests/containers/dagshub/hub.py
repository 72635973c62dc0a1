"""Stands in for DagsHub in tests: its API, its MLflow and its storage behind one address, with its manners and faults.

    python hub.py --host 0.0.0.0 --port 80 --folder /data --user jane --token TOKEN

As on DagsHub, `/OWNER/NAME.mlflow` is an MLflow server with basic auth (the token is the password), `/OWNER/NAME.s3`
speaks S3 with the token as both keys and has one bucket, `dvc`, and `/api/v1` says whose a token is and makes
repositories. By default the model registry answers 404 and logged models 500, as has been seen of it
(DagsHub/client#629, #457). POST /_control with `{"down": true}` and so on changes how it behaves.

Behind it are a real MLflow server and moto's S3, which know of no credentials: what is checked is checked here.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlsplit

REGISTRY = ("/registered-models", "/model-versions")
LOGGED_MODELS = ("/logged-models", "/runs/log-model")
BUCKET = "dvc"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass
class Hub:
    """What DagsHub knows, and how it behaves at the moment."""

    mlflow: str  # address of a server that asks for no credentials
    s3: str
    tokens: dict[str, str] = field(default_factory=dict)  # token -> user
    expired: set[str] = field(default_factory=set)
    repositories: set[str] = field(default_factory=set)  # owner/name
    read_only: set[str] = field(default_factory=set)
    registry_status: int = 404  # 0: the registry works
    logged_models_status: int = 500
    down: bool = False  # connections are closed without an answer
    refuse_writes: bool = False  # of the storage
    drip_seconds: float = 0.0  # pause between the bytes of every answer
    seen: list[str] = field(default_factory=list, repr=False)  # "GET /path -> 200", without queries
    url: str = ""

    def control(self, changes: dict[str, Any]) -> None:
        """Changes how it behaves."""
        for name, value in changes.items():
            kind = type(getattr(self, name))
            setattr(self, name, kind(value))

    def judge(self, token: str) -> str | None:
        """Says what stands against a token; None where it is good."""
        if token in self.expired:
            return "token expired"
        return None if token in self.tokens else "invalid token"


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)

    @classmethod
    def json(cls, status: int, content: Any) -> "Answer":
        """Builds an answer of the API."""
        return cls(status, json.dumps(content).encode())


def signature_v4(secret: str, request: "Handler", stated: dict[str, str]) -> str:
    """Computes the signature that S3 expects of a request (AWS Signature Version 4)."""
    target = urlsplit(request.path)
    signed = stated["SignedHeaders"].split(";")
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(target.query, keep_blank_values=True)
    )
    canonical = [
        request.command,
        target.path,
        "&".join(f"{name}={value}" for name, value in query),
        *(f"{name}:{' '.join((request.headers.get(name) or '').split())}" for name in signed),
        "",
        ";".join(signed),
        request.headers.get("x-amz-content-sha256", ""),
    ]
    _, date, region, service, end = stated["Credential"].split("/")
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    scope = f"{date}/{region}/{service}/{end}"
    text = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{scope}\n{digest}"
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, end):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        """What this server knows."""
        return cast("HubServer", self.server).hub

    def handle_any(self) -> None:
        """Answers a request, or misbehaves."""
        body = self._read_body()
        path = urlsplit(self.path).path
        if path == "/_control" and self.command == "POST":
            self.hub.control(json.loads(body))
            self._send(Answer.json(200, {}))
            return
        if self.hub.down:
            self.hub.seen.append(f"{self.command} {path} -> down")
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        answer = self._answer(path, body)
        self.hub.seen.append(f"{self.command} {path} -> {answer.status}")
        self._send(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

    def _read_body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # http.server has sent "100 Continue" already
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, path: str, body: bytes) -> Answer:
        if path.startswith("/api/v1/"):
            return self._api(path, body)
        for slug in self.hub.repositories:
            for suffix, answer in ((".mlflow", self._mlflow), (".s3", self._s3)):
                prefix = f"/{slug}{suffix}"
                if path == prefix or path.startswith(f"{prefix}/"):
                    return answer(slug, self.path[len(prefix) :], body)
        return Answer.json(404, {"error": "not found"})

    # The API

    def _api(self, path: str, body: bytes) -> Answer:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        problem = self.hub.judge(token) if scheme in ("Bearer", "token") else "no token"
        if problem:
            return Answer.json(401, {"error": problem})
        user = self.hub.tokens[token]
        if path == "/api/v1/user":
            return Answer.json(200, _user(user))
        if path.startswith("/api/v1/repos/"):
            slug = path.removeprefix("/api/v1/repos/")
            known = slug in self.hub.repositories
            return Answer.json(200, self._repository(slug)) if known else Answer.json(404, {})
        if self.command == "POST" and path.endswith("/repos"):
            owner = user if path == "/api/v1/user/repos" else path.split("/")[4]
            slug = f"{owner}/{dict(parse_qsl(body.decode()))['name']}"
            make_bucket(self.hub, slug)
            self.hub.repositories.add(slug)
            return Answer.json(201, self._repository(slug))
        return Answer.json(404, {"error": "not found"})

    def _repository(self, slug: str) -> dict[str, Any]:
        owner, name = slug.split("/")
        page = f"{self.hub.url}/{slug}"
        numbers = (
            "id",
            "size",
            "stars_count",
            "forks_count",
            "watchers_count",
            "open_issues_count",
        )
        return {
            **dict.fromkeys(numbers, 1),
            **dict.fromkeys(("private", "fork", "mirror"), False),
            **dict.fromkeys(("created_at", "updated_at"), "2026-11-21T09:30:00Z"),
            **dict.fromkeys(("parent", "ssh_url", "website"), None),
            "owner": _user(owner),
            "name": name,
            "full_name": slug,
            "description": "",
            "empty": True,
            "html_url": page,
            "clone_url": f"{page}.git",
            "default_branch": "main",
            "permissions": {"admin": False, "push": slug not in self.hub.read_only, "pull": True},
        }

    # MLflow

    def _mlflow(self, _slug: str, target: str, body: bytes) -> Answer:
        problem = self._judge_basic()
        if problem:
            return Answer(401, problem.encode(), (("WWW-Authenticate", "Basic"),))
        for parts, status in (
            (REGISTRY, self.hub.registry_status),
            (LOGGED_MODELS, self.hub.logged_models_status),
        ):
            if status and any(part in target for part in parts):
                return Answer(status, b"nothing here", (("Content-Type", "text/html"),))
        return self._pass_on(self.hub.mlflow, target, body)

    def _judge_basic(self) -> str | None:
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return "credentials are missing"
        user, _, token = base64.b64decode(value).decode().partition(":")
        return self.hub.judge(token) if user else "a user name is missing"

    # Storage

    def _s3(self, slug: str, target: str, body: bytes) -> Answer:
        problem = self._judge_signature()
        if problem:
            code, status = problem
            text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
            return Answer(status, text.encode(), (("Content-Type", "application/xml"),))
        # A bucket of its own for each repository, which all know by the same name.
        path, question, query = target.partition("?")
        if path != f"/{BUCKET}" and not path.startswith(f"/{BUCKET}/"):
            text = "<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>"
            return Answer(404, text.encode(), (("Content-Type", "application/xml"),))
        own = f"/{bucket_of(slug)}{path.removeprefix(f'/{BUCKET}')}"
        return self._pass_on(self.hub.s3, own + question + query, body, unsigned=True)

    def _judge_signature(self) -> tuple[str, int] | None:
        scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
        if scheme != "AWS4-HMAC-SHA256":
            return "AccessDenied", 403
        stated = dict(part.strip().split("=", 1) for part in rest.split(","))
        token = stated["Credential"].split("/")[0]
        if token in self.hub.expired:
            return "ExpiredToken", 403
        if token not in self.hub.tokens:
            return "InvalidAccessKeyId", 403
        if self.hub.refuse_writes and self.command in ("PUT", "POST", "DELETE"):
            return "AccessDenied", 403
        if not hmac.compare_digest(signature_v4(token, self, stated), stated["Signature"]):
            return "SignatureDoesNotMatch", 403
        return None

    # Passing on

    def _pass_on(self, server: str, target: str, body: bytes, *, unsigned: bool = False) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
        left_out = _HOP_BY_HOP | {"authorization"}
        headers = {k: v for k, v in self.headers.items() if k.lower() not in left_out}
        if unsigned:
            # moto tells the accounts of its users apart by the key; ours are its default's.
            headers["Authorization"] = (
                "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"
            )
        try:
            connection.request(self.command, target or "/", body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP]
        if self.command == "HEAD" and (length := answer.getheader("Content-Length")):
            kept.append(("Content-Length", length))
        return Answer(answer.status, content, tuple(kept))

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        has_length = any(name == "Content-Length" for name, _ in answer.headers)
        if not has_length and answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        if self.hub.drip_seconds:
            self._drip(answer)
            return
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _drip(self, answer: Answer) -> None:
        # As http.server keeps them until `end_headers`.
        head = b"".join(self._headers_buffer) + b"\r\n"
        self._headers_buffer: list[bytes] = []
        for byte in head + answer.body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(self.hub.drip_seconds)

    def handle_one_request(self) -> None:
        """Takes a client that left as what it is."""
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Stays silent: `Hub.seen` is the record."""


def _user(name: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("avatar_url", "public_email", "website", "company", "description"))
    return {"id": 1, "login": name, "username": name, "full_name": name, **nothing}


def bucket_of(slug: str) -> str:
    """Names the bucket behind a repository's."""
    return f"{slug.replace('/', '-')}-{BUCKET}".lower()


class HubServer(ThreadingHTTPServer):
    """The listening server."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: Hub, host: str, port: int) -> None:
        super().__init__((host, port), Handler)
        self.hub = hub
        if not hub.url:
            hub.url = f"http://{host}:{self.server_address[1]}"


def _any_port() -> int:
    """Finds a port that nobody listens on now; enough where nothing else starts, as in the stand-in's container."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else str(shutil.which(name))


@contextmanager
def _running(name: str, command: list[str], url: str, folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
        )
    try:
        _wait(url, process)
        yield "{0.scheme}://{0.netloc}".format(urlsplit(url))
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]", seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                answer.read()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{url} did not come up")


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Runs an MLflow server on SQLite; gives its address."""
    port = _any_port()
    command = [
        *(_program("mlflow"), "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"),
        f"--backend-store-uri=sqlite:///{folder / 'mlflow.db'}",
        f"--artifacts-destination={folder / 'artifacts'}",
    ]
    with _running("mlflow", command, f"http://127.0.0.1:{port}/health", folder) as url:
        yield url


@contextmanager
def s3_server(folder: Path, port: int = 0) -> Iterator[str]:
    """Runs moto's S3, on any port unless one is given; gives its address."""
    port = port or _any_port()
    command = [_program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with _running("s3", command, f"http://127.0.0.1:{port}/moto-api/", folder) as url:
        yield url


def make_bucket(hub: Hub, slug: str) -> None:
    """Makes the bucket behind a repository's; a second time does no harm."""
    request = urllib.request.Request(f"{hub.s3}/{bucket_of(slug)}", method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def main() -> None:
    """Runs the stand-in until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--user", default="jane")
    parser.add_argument("--token", required=True)
    parser.add_argument("--repository", action="append", default=[])
    given = parser.parse_args()
    with mlflow_server(given.folder) as mlflow, s3_server(given.folder) as s3:
        hub = Hub(mlflow, s3, {given.token: given.user}, repositories=set(given.repository))
        for slug in given.repository:
            make_bucket(hub, slug)
        server = HubServer(hub, given.host, given.port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Event().wait()


if __name__ == "__main__":
    main()
