"""The server itself: what is no HTTP, slow headers, taken ports, and a start that fails."""

import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from guarded_app import GOOD, guarded_app
from live_server import is_closed, live_server, read_answer
from product_classifier.core.errors import ArtifactError, RuntimeServiceError
from product_classifier.web import server as module
from product_classifier.web.leaving import refuse_when_leaving
from product_classifier.web.problems import install_problem_handlers
from product_classifier.web.server import READ_BYTES, run_service

DELAY_SECONDS = 3.0  # enough for two requests on a busy machine


@pytest.fixture
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def short(monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(module, name, value)
        yield


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    ],
    ids=["tls", "words", "header", "no-host", "length", "encoding", "nul"],
)
def test_what_is_no_request_gets_a_problem_and_the_connection_ends(data: bytes) -> None:
    with live_server(guarded_app()) as live, live.connect() as sock:
        sock.sendall(data + b"\r\n\r\n")
        answer = read_answer(sock)
        assert is_closed(sock)
    assert 400 <= answer.status < 600
    assert answer.headers["content-type"] == "application/problem+json"
    assert "server" not in answer.headers


def test_a_body_that_breaks_its_framing_is_400() -> None:
    with live_server(guarded_app()) as live, live.connect() as sock:
        head = b"POST /open-post HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        sock.sendall(head + b"5\r\nhello\r\nnonsense\r\n")
        assert read_answer(sock).status == 400
        assert is_closed(sock)


def test_dripped_headers_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with short(monkeypatch, "HEADER_SECONDS", 1.0), live_server(guarded_app()) as live:
        with live.connect() as sock:
            sock.sendall(b"GET /open HTTP/1.1\r\nHost: a\r\nX-A: ")
            assert read_answer(sock).status == 408
            assert is_closed(sock)
        with live.connect() as sock:  # the same on a connection that was used before
            sock.sendall(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_answer(sock).status == 200
            sock.sendall(b"GET /op")
            assert read_answer(sock).status == 408


def test_too_many_connections_are_503(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        short(monkeypatch, "MAX_CONNECTIONS", 2),
        live_server(guarded_app()) as live,
        live.connect() as first,
        live.connect() as second,
    ):
        for sock in (first, second):
            sock.sendall(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_answer(sock).status == 200
        with live.connect() as third:
            assert read_answer(third).status == 503


@pytest.mark.usefixtures("_signals_as_before")
def test_a_taken_port_is_an_error_with_its_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeServiceError, match=str(port)):
            run_service(guarded_app, "127.0.0.1", port, 1)


@pytest.mark.usefixtures("_signals_as_before")
def test_what_stops_the_start_is_told() -> None:
    @asynccontextmanager
    async def broken(_app: FastAPI) -> AsyncIterator[None]:
        raise ArtifactError("no keys")
        yield

    with pytest.raises(ArtifactError, match="no keys"):
        run_service(lambda: guarded_app(lifespan=broken), "127.0.0.1", 0, 1)


def test_a_caller_who_takes_nothing_of_its_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = guarded_app()

    @app.get("/large")
    async def large() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield b"x" * 65536

        return StreamingResponse(parts())

    with short(monkeypatch, "STALL_SECONDS", 1.0), live_server(app) as live, live.connect() as sock:
        head = f"GET /large HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {GOOD}"
        sock.sendall(head.encode() + b"\r\n\r\n")
        deadline = time.monotonic() + 60
        began = False
        while not began or live.server.server_state.tasks:
            began = began or bool(live.server.server_state.tasks)
            assert time.monotonic() < deadline, "the answer still waits for its caller"
            time.sleep(0.01)


def test_a_slow_caller_gets_all_of_a_large_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        short(monkeypatch, "STALL_SECONDS", 10),
        live_server(guarded_app()) as live,
        live.connect() as sock,
    ):
        name = b"/docs/assets/swagger-ui-bundle.js"
        sock.sendall(b"GET " + name + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.3)
        assert read_answer(sock).status == 200


def test_a_body_of_tiny_chunks_does_not_stop_the_others() -> None:
    with live_server(guarded_app()) as live, live.connect() as sock:
        sock.sendall(b"POST /nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert read_answer(sock).status == 401
        [connection] = live.server.server_state.connections
        assert connection.transport.max_size == READ_BYTES


def test_before_it_ends_it_says_so_and_goes_on_for_a_moment() -> None:
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/open")
    def open_page() -> str:
        return "open"

    @app.get("/ready", dependencies=[Depends(refuse_when_leaving)])
    def ready() -> str:
        return "ready"

    with (
        live_server(app, delay_seconds=DELAY_SECONDS) as live,
        httpx.Client(base_url=live.url, timeout=60, trust_env=False) as client,
    ):

        def ask(path: str) -> int:
            return client.get(path).status_code

        assert ask("/ready") == 200
        told = time.monotonic()
        live.server.handle_exit(signal.SIGTERM, None)
        assert (ask("/ready"), ask("/open")) == (503, 200)
        assert not live.server.should_exit
        while not live.server.should_exit:
            assert time.monotonic() < told + 60
            time.sleep(0.01)
        assert time.monotonic() - told >= DELAY_SECONDS


def test_told_twice_it_ends_at_once() -> None:
    with live_server(guarded_app(), delay_seconds=60) as live:
        live.server.handle_exit(signal.SIGTERM, None)
        assert not live.server.should_exit
        live.server.handle_exit(signal.SIGTERM, None)
        assert live.server.should_exit
