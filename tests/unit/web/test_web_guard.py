"""What is refused before a byte of a body reaches the app; over raw sockets against a real uvicorn."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from fastapi.testclient import TestClient

from guarded_app import AUTHORIZATION, BODY_BYTES, GOOD, guarded_app
from live_server import LiveServer, is_closed, live_server, read_answer
from product_classifier.web.guard import DRAIN_BYTES
from product_classifier.web.throttle import AnonymousThrottle, Rate

MEGABYTE = 2**20


class CountingProxy:
    """Passes bytes on to a server and counts what it took; the kernel's buffers are kept small."""

    def __init__(self, port: int) -> None:
        self.taken = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket() as upstream, suppress(OSError):
            upstream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            upstream.connect(("127.0.0.1", self._port))
            back = threading.Thread(target=self._copy, args=(upstream, client, False))
            back.start()
            self._copy(client, upstream, True)
            back.join(30)

    def _copy(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                if counts:
                    self.taken += len(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a caller
        self._listener.close()


@pytest.fixture
def live() -> Iterator[LiveServer]:
    with live_server(guarded_app()) as server:
        yield server


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode(
        "latin-1"
    )


BEARER = f"Authorization: Bearer {GOOD}"


def send_forever(sock: socket.socket, data: bytes, limit: int) -> int:
    """Sends until the other side has had enough; gives the bytes that the kernel took."""
    sent = 0
    with suppress(OSError):
        while sent < limit:
            sent += sock.send(data)
    return sent


@pytest.mark.parametrize(
    "path", ["/upload", "/nothing-here", "/metrics/model", "/health/", "//open"]
)
def test_100_megabytes_without_a_token_are_refused_after_1_megabyte_at_most(
    live: LiveServer, path: str
) -> None:
    proxy = CountingProxy(live.port)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as sock:
        sock.sendall(head(path, f"Content-Length: {100 * MEGABYTE}"))
        sender = threading.Thread(target=send_forever, args=(sock, b"x" * 65536, 100 * MEGABYTE))
        sender.start()
        answer = read_answer(sock)
        time.sleep(0.2)  # it could read more now
        with suppress(OSError):  # the other side has gone
            sock.shutdown(socket.SHUT_RDWR)
        sender.join(30)
    proxy.close()
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["connection"] == "close"
    assert answer.json()["reason"] == "missing"
    assert proxy.taken <= MEGABYTE


def test_an_endless_chunked_body_without_a_token_is_refused_at_once(live: LiveServer) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with live.connect() as sock:
        sock.sendall(head("/upload", "Transfer-Encoding: chunked"))
        sender = threading.Thread(target=send_forever, args=(sock, chunk, 100 * MEGABYTE))
        sender.start()
        answer = read_answer(sock)
        sender.join(30)
    assert answer.status == 401


def test_an_endless_chunked_body_with_a_token_is_cut_off_at_the_limit() -> None:
    app = guarded_app()
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    with live_server(app) as live, live.connect() as sock:
        sock.sendall(head("/upload", BEARER, "Transfer-Encoding: chunked"))
        sender = threading.Thread(target=send_forever, args=(sock, chunk, 100 * MEGABYTE))
        sender.start()
        answer = read_answer(sock)
        sender.join(30)
        assert is_closed(sock)
    assert answer.status == 413
    assert answer.json()["limit"] == BODY_BYTES
    assert app.state.consumed <= BODY_BYTES


@pytest.mark.parametrize("path", ["/upload", "/form"])
def test_a_chunked_body_over_the_limit_is_413_whatever_the_app_makes_of_it(
    live: LiveServer, path: str
) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    body = field + b"x" * (BODY_BYTES + 1)
    with live.connect() as sock:
        form = "Content-Type: multipart/form-data; boundary=b"
        sock.sendall(head(path, BEARER, form, "Transfer-Encoding: chunked"))
        sock.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert read_answer(sock).status == 413


def test_a_length_over_the_limit_is_413_and_nothing_reaches_the_app() -> None:
    app = guarded_app()
    with live_server(app) as live, live.connect() as sock:
        sock.sendall(head("/upload", BEARER, f"Content-Length: {BODY_BYTES + 1}"))
        sock.sendall(b"x" * 1000)
        answer = read_answer(sock)
        assert is_closed(sock)
    assert answer.status == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert app.state.consumed == 0


def test_ordinary_clients_that_send_all_first_see_the_answer(live: LiveServer) -> None:
    body = b"x" * (DRAIN_BYTES - 1000)
    for _ in range(5):
        with live.connect() as sock:
            sock.sendall(head("/upload", f"Content-Length: {len(body)}") + body)
            assert read_answer(sock).status == 401


def test_a_body_of_the_greatest_size_passes(live: LiveServer) -> None:
    with live.connect() as sock:
        sock.sendall(head("/upload", BEARER, f"Content-Length: {BODY_BYTES}"))
        sock.sendall(b"x" * BODY_BYTES)
        assert read_answer(sock).json() == {"size": BODY_BYTES}


def test_paths_without_a_limit_of_their_own_take_16_kilobytes(live: LiveServer) -> None:
    with live.connect() as sock:
        sock.sendall(head("/open-post", "Content-Length: 16384") + b"x" * 16384)
        assert read_answer(sock).body == b"16384"
        sock.sendall(head("/open-post", "Content-Length: 16385"))
        assert read_answer(sock).status == 413


def test_a_slow_body_is_408() -> None:
    app = guarded_app(policy={"body_seconds": 0.5})
    with live_server(app) as live, live.connect() as sock:
        began = time.monotonic()
        sock.sendall(head("/upload", BEARER, "Content-Length: 1000"))
        stop = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not stop.wait(0.05):
                    sock.send(b"x")

        dripper = threading.Thread(target=drip)
        dripper.start()
        answer = read_answer(sock)
        took = time.monotonic() - began
        stop.set()
        dripper.join()
    assert answer.status == 408
    assert 0.5 <= took < 25  # the whole body would take 50


def test_a_caller_that_waits_for_continue_gets_the_refusal_instead(live: LiveServer) -> None:
    with live.connect() as sock:
        sock.sendall(head("/upload", "Content-Length: 100000", "Expect: 100-continue"))
        assert read_answer(sock).status == 401
        assert is_closed(sock)


def test_a_refusal_without_a_body_keeps_the_connection(live: LiveServer) -> None:
    with live.connect() as sock:
        for _ in range(3):
            sock.sendall(head("/who", method="GET"))
            answer = read_answer(sock)
            assert answer.status == 401
            assert "connection" not in answer.headers
        sock.sendall(head("/who", BEARER, method="GET"))
        assert read_answer(sock).json()["user"] == "alice"


def test_pipelined_requests_are_answered_in_turn(live: LiveServer) -> None:
    with live.connect() as sock:
        sock.sendall(head("/who", method="GET") + head("/open", method="GET"))
        answers = b""
        while answers.count(b"HTTP/1.1") < 2 or b'"open"' not in answers:
            answers += sock.recv(65536)
    assert answers.index(b"HTTP/1.1 401") < answers.index(b"HTTP/1.1 200")


def test_what_follows_a_refused_body_is_never_taken_for_a_request(live: LiveServer) -> None:
    smuggled = head("/open", method="GET")
    with live.connect() as sock:
        sock.sendall(head("/upload", f"Content-Length: {len(smuggled)}") + smuggled)
        data = b""
        with suppress(ConnectionResetError, TimeoutError):
            sock.settimeout(10)
            while chunk := sock.recv(65536):
                data += chunk
    assert data.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("path", ["/open", "/health"])
def test_an_endless_body_to_a_route_without_one_ends_the_connection(
    live: LiveServer, path: str
) -> None:
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    with live.connect() as sock:
        sock.sendall(head(path, "Transfer-Encoding: chunked"))
        sender = threading.Thread(target=send_forever, args=(sock, chunk, 100 * MEGABYTE))
        sender.start()
        answer = read_answer(sock)
        sender.join(30)
        assert is_closed(sock)
    assert answer.status == 405
    assert answer.headers["connection"] == "close"


def test_both_kinds_of_length_at_once_are_refused(live: LiveServer) -> None:
    with live.connect() as sock:
        sock.sendall(
            head("/upload", BEARER, "Content-Length: 3", "Transfer-Encoding: chunked")
            + b"0\r\n\r\n"
        )
        assert read_answer(sock).status == 400


@pytest.mark.parametrize("size", [8192, 15_000, 100_000])
def test_headers_over_8_kilobytes_are_431(live: LiveServer, size: int) -> None:
    with live.connect() as sock:
        sock.sendall(head("/open", "X-Long: " + "x" * size, method="GET"))
        answer = read_answer(sock)
    assert answer.status == 431
    assert answer.json()["title"] == "Request Header Fields Too Large"


def test_a_long_address_is_431(live: LiveServer) -> None:
    with live.connect() as sock:
        sock.sendall(head("/open?" + "x" * 9000, method="GET"))
        assert read_answer(sock).status == 431


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "malformed"),
        ("Bearer", "malformed"),
        ("Bearer a b", "malformed"),
        (f"Basic {GOOD}", "malformed"),
        (f"Token {GOOD}", "malformed"),
        (f"Bearer {GOOD}x", "signature"),
        ("Bearer " + "x" * 4097, "too_large"),
    ],
    ids=["empty", "only-scheme", "two-parts", "basic", "other-scheme", "wrong", "large"],
)
def test_other_authorization_headers_are_401_with_the_reason(header: str, reason: str) -> None:
    with TestClient(guarded_app()) as client:
        answer = client.get("/who", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["reason"] == reason
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_two_authorization_headers_are_401() -> None:
    with TestClient(guarded_app()) as client:
        pair = ("Authorization", f"Bearer {GOOD}")
        assert client.get("/who", headers=[pair, pair]).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_has_no_case(scheme: str) -> None:
    with TestClient(guarded_app()) as client:
        assert client.get("/who", headers={"Authorization": f"{scheme} {GOOD}"}).status_code == 200


def test_without_keys_a_token_is_503_and_public_pages_go_on() -> None:
    with TestClient(guarded_app()) as client:
        client.headers["Authorization"] = "Bearer no-keys"
        answer = client.get("/who")
        assert client.get("/open").status_code == 200
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


def test_unknown_paths_are_401_without_and_404_with_a_token() -> None:
    with TestClient(guarded_app()) as client:
        assert client.get("/nothing").status_code == 401
        assert client.get("/nothing", headers=AUTHORIZATION).status_code == 404
        assert client.get("/open/", headers=AUTHORIZATION).status_code == 404
        for path in ("/who%0a", "/open%0A", "/metrics%0a"):  # the router alone would find a page
            assert client.get(path).status_code == 401
            assert client.get(path, headers=AUTHORIZATION).status_code == 404
        assert client.get("/docs/assets/../../who").status_code == 401
        assert client.get("/docs/assets/%2e%2e/%2e%2e/who").status_code == 404


def test_floods_without_a_token_are_429_and_tokens_still_pass() -> None:
    throttle = AnonymousThrottle(Rate(3, 60), clock=lambda: 0.0)
    with TestClient(guarded_app(policy={"throttle": throttle})) as client:
        assert [client.get("/who").status_code for _ in range(5)] == [401, 401, 401, 429, 429]
        limited = client.get("/open")
        assert limited.status_code == 429
        assert int(limited.headers["retry-after"]) == 20
        assert client.get("/health").status_code == 200
        assert client.get("/open", headers=AUTHORIZATION).status_code == 200
        assert client.get("/who", headers=AUTHORIZATION).status_code == 200


def test_the_throttle_fills_again_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("product_classifier.web.throttle.MAX_ADDRESSES", 2)
    now = [0.0]
    throttle = AnonymousThrottle(Rate(1, 60), clock=lambda: now[0])
    assert throttle.take("10.0.0.1") is None
    assert throttle.take("10.0.0.1") == 60
    now[0] = 60.0
    assert throttle.take("10.0.0.1") is None
    assert throttle.take("2001:db8::1") is None
    assert throttle.take("2001:db8::2") == 60
    assert throttle.take("10.0.0.3") is None
    assert throttle.take("10.0.0.1") is None


def test_a_caller_who_leaves_amid_its_body_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    entries: list[dict[str, object]] = []
    with live_server(guarded_app(on_entry=entries.append)) as live:
        with live.connect() as sock:
            sock.sendall(head("/open-post", "Content-Length: 100") + b"some")
            time.sleep(0.2)
        deadline = time.monotonic() + 30
        while not entries:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with live.connect() as sock:
            sock.sendall(head("/metrics", method="GET"))
            metrics = read_answer(sock).body.decode()
    assert entries[0]["status"] == 499
    assert 'handler="/open-post",method="POST",status="5xx"} 0.0' in metrics
    assert "Traceback" not in caplog.text
