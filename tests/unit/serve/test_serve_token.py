"""The proxied sign-in, against a real HTTP server in auth's place."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient

from metrics_page import series
from product_classifier.core.workspace import Workspace
from product_classifier.serve.app import create_app
from product_classifier.serve.auth_proxy import AuthProxy
from product_classifier.web.refusals import LIMIT_SCOPES
from serving import bearer, serve_settings
from slow_server import slow_server

FORM = {"username": "alice", "password": "correct horse battery"}
TOKENS = {
    "access_token": "a.b.c",
    "token_type": "bearer",
    "expires_in": 1800,
    "refresh_token": "r",
    "refresh_expires_in": 9,
}
PROBLEM = {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "No."}


class Auth(ThreadingHTTPServer):
    """Answers what it is told to, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: tuple[int, str, bytes, dict[str, str]] = (
            200,
            "application/json",
            json.dumps(TOKENS).encode(),
            {},
        )
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server: Any = self.server
        names = {name.lower(): value for name, value in self.headers.items()}
        server.asked.append((self.path, names, body))
        status, kind, content, headers = server.answer
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def auth() -> Iterator[Auth]:
    server = Auth()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@contextmanager
def client_of(workspace: Workspace, url: str, seconds: float = 10, **values: Any) -> Iterator[Any]:
    settings = serve_settings(auth_url=url, **values)
    app = create_app(settings, workspace)
    app.state.auth_proxy = AuthProxy(settings, total_seconds=seconds)
    with TestClient(app, client=("10.1.2.3", 50000)) as client:
        yield client


def test_a_sign_in_is_passed_on_as_it_came(
    workspace: Workspace, auth: Auth, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with client_of(workspace, auth.url) as client:
        spoofed = {"X-Forwarded-For": "6.6.6.6", "X-Request-ID": "my-id"}
        answer = client.post("/token", data=FORM, headers=spoofed)
        assert answer.json() == TOKENS
        assert answer.headers["cache-control"] == "no-store"
        [(path, headers, body)] = auth.asked
    assert path == "/token"
    assert body == b"username=alice&password=correct+horse+battery"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert headers["x-forwarded-for"] == "10.1.2.3"
    assert headers["x-request-id"] == "my-id"
    assert "correct" not in caplog.text


def test_a_trusted_proxys_word_is_passed_on(workspace: Workspace, auth: Auth) -> None:
    with client_of(workspace, auth.url, trusted_proxies="10.0.0.0/8") as client:
        client.post("/token", data=FORM, headers={"X-Forwarded-For": "6.6.6.6, 9.9.9.9"})
    assert auth.asked[0][1]["x-forwarded-for"] == "9.9.9.9"


def test_refresh_and_logout_are_passed_on(workspace: Workspace, auth: Auth) -> None:
    with client_of(workspace, auth.url) as client:
        assert client.post("/token/refresh", json={"refresh_token": "r"}).status_code == 200
        auth.answer = (204, "application/json", b"", {})
        assert client.post("/logout").status_code == 401
        assert client.post("/logout", headers=bearer()).status_code == 204
    assert [path for path, _, _ in auth.asked] == ["/token/refresh", "/logout"]
    assert auth.asked[1][1]["authorization"].startswith("Bearer ey")


@pytest.mark.parametrize("status", [400, 401, 422, 429, 503])
def test_refusals_are_passed_back(workspace: Workspace, auth: Auth, status: int) -> None:
    content = json.dumps({**PROBLEM, "status": status}).encode()
    more = {"Retry-After": "300", "WWW-Authenticate": "Bearer", "Set-Cookie": "a=b"}
    auth.answer = (status, "application/problem+json", content, more)
    with client_of(workspace, auth.url) as client:
        answer = client.post("/token", data=FORM)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert answer.headers["retry-after"] == "300"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ({"scope": "lockout"}, "lockout"),
        ({"scope": "anonymous"}, "anonymous"),
        ({}, "anonymous"),
        ({"scope": "made up"}, "anonymous"),
        ({"scope": ["lockout"]}, "anonymous"),
    ],
)
def test_a_429_of_auth_counts_as_what_auth_says(
    workspace: Workspace, auth: Auth, said: dict[str, Any], counted: str
) -> None:
    content = json.dumps({**PROBLEM, "status": 429, **said}).encode()
    auth.answer = (429, "application/problem+json", content, {"Retry-After": "300"})
    with client_of(workspace, auth.url) as client:
        answer = client.post("/token", data=FORM)
        shown = series(client.get("/metrics").text)
    assert answer.json() == {**PROBLEM, "status": 429, **said}
    limited = "product_classifier_rate_limited_total"
    expected = {f'{limited}{{scope="{who}"}}': who == counted for who in LIMIT_SCOPES}
    assert {name: count for name, count in shown.items() if limited in name} == expected


@pytest.mark.parametrize(
    ("kind", "content"),
    [("text/html", b"<h1>oops</h1>"), ("application/json", b"[" * 5), ("application/json", b"[]")],
)
@pytest.mark.parametrize("status", [200, 500])
def test_what_is_no_answer_of_auth_is_503(
    workspace: Workspace, auth: Auth, status: int, kind: str, content: bytes
) -> None:
    auth.answer = (status, kind, content, {})
    with client_of(workspace, auth.url) as client:
        assert client.post("/token", data=FORM).status_code == 503


def test_without_auth_the_answer_is_503_with_retry_after(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(workspace, "http://127.0.0.1:9") as client:
        answer = client.post("/token", data=FORM)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "correct" not in caplog.text


@pytest.mark.parametrize("drip", [b"", b"H"], ids=["hangs", "drips"])
def test_an_auth_that_hangs_or_drips_is_503_after_the_deadline(
    workspace: Workspace, drip: bytes
) -> None:
    with slow_server(drip=drip) as url, client_of(workspace, url, seconds=0.5) as client:
        began = time.monotonic()
        assert client.post("/token", data=FORM).status_code == 503
        assert time.monotonic() - began < 15  # the server would take 60, or go on for ever


def test_a_header_that_is_not_ascii_reaches_auth(workspace: Workspace, auth: Auth) -> None:
    kind = "application/json; charset=é".encode("latin-1")
    with client_of(workspace, auth.url) as client:
        answer = client.post("/token", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == 200
    assert len(auth.asked) == 1
