"""`product-classifier serve` as a process: its end, its exit codes, its log."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from redis_process import running_redis
from serving import NOBODY, SECRET, bearer, champion_workspace
from unused_ports import free_port
from upload_corpus import encode, picture


class Served:
    """A process and its address."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}"


def environment(**values: str) -> dict[str, str]:
    taken = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in taken}
    return {
        **kept,
        "ALGORITHM": "HS256",
        "SECRET_KEY": SECRET,
        "AUTH_URL": NOBODY,
        "PREDICT_RATE_LIMIT": "10000/minute",
        **values,
    }


def start(workspace: Workspace, out: Path, **values: str) -> subprocess.Popen[str]:
    with out.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "product_classifier", "serve"],
            cwd=workspace.root,
            env=environment(**values),
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def served(workspace: Workspace, out: Path, **values: str) -> Iterator[Served]:
    port = free_port()
    process = start(workspace, out, SERVE_PORT=str(port), **values)
    try:
        deadline = time.monotonic() + 180
        while True:
            assert process.poll() is None, out.read_text()
            assert time.monotonic() < deadline, out.read_text()
            try:
                if httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.05)
        yield Served(process, port, out)
    finally:
        process.kill()
        process.wait(60)


@pytest.fixture(scope="module")
def champion(trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return champion_workspace(trained_workspace, tmp_path_factory.mktemp("process") / "a b")


def form() -> bytes:
    photo = encode(picture(), "JPEG")
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return head + photo + b"\r\n--b--\r\n"


def test_20_requests_in_flight_at_sigterm_are_all_answered(
    champion: Workspace, tmp_path: Path
) -> None:
    body = form()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer()['Authorization']}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with served(champion, tmp_path / "log", INFERENCE_WORKERS="1") as service, ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 120))
            for _ in range(20)
        ]
        for sock in socks:
            sock.sendall(head + body[:-1])  # all of it but the last byte: surely in flight
        settle(service)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        answers: list[bytes] = []

        def finish(sock: socket.socket) -> None:
            sock.sendall(body[-1:])
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
            answers.append(data)

        threads = [threading.Thread(target=finish, args=(sock,)) for sock in socks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert service.process.wait(120) == 0
    assert len(answers) == 20
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers), answers[:2]
    assert all(b'"predictions"' in answer for answer in answers)


def settle(service: Served) -> None:
    """Returns when what was sent before has been read: requests come in turn into one event loop."""
    for _ in range(3):
        assert httpx.get(f"{service.url}/health", timeout=60).is_success


def test_every_line_of_its_log_is_json_and_the_file_has_them_too(
    champion: Workspace, tmp_path: Path
) -> None:
    with served(
        champion, tmp_path / "log", SERVING_LOGGER_PATH=str(tmp_path / "logs" / "serve.log")
    ) as service:
        headers = {**bearer(), "X-Request-ID": "mine"}
        files = {"designation": (None, "Livre confidentiel")}
        url = f"{service.url}/predict"
        assert httpx.post(url, files=files, headers=headers, timeout=60).is_success
        with socket.create_connection(("127.0.0.1", service.port), 30) as sock:
            sock.sendall(b"nonsense\r\n\r\n")
            sock.recv(1000)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(120) == 0
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    assert all(line["stage"] == "serve" for line in lines)
    assert any(line["logger"] == "uvicorn.error" for line in lines)
    assert not any("color_message" in line for line in lines)
    [line] = [line for line in lines if line.get("request_id") == "mine"]
    assert (line["route"], line["user"], line["status"]) == ("/predict", "alice", 200)
    assert "confidentiel" not in text
    assert SECRET not in text
    assert (tmp_path / "logs" / "serve.log").read_text() == text


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"SECRET_KEY": "changeme"}, "SECRET_KEY"),
        ({"PREDICT_RATE_LIMIT": "lots"}, "PREDICT_RATE_LIMIT"),
        ({"ANONYMOUS_RATE_LIMIT": "lots"}, "ANONYMOUS_RATE_LIMIT"),
        ({"TRUSTED_PROXIES": "nonsense"}, "TRUSTED_PROXIES"),
    ],
)
def test_nonsense_settings_end_it_with_code_2(
    workspace: Workspace, tmp_path: Path, values: dict[str, str], named: str
) -> None:
    process = start(workspace, tmp_path / "log", SERVE_PORT=str(free_port()), **values)
    assert process.wait(120) == 2
    assert named in (tmp_path / "log").read_text()


def test_a_taken_port_ends_it_with_code_1(workspace: Workspace, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(workspace, tmp_path / "log", SERVE_PORT=str(port))
        assert process.wait(120) == 1
    assert str(port) in (tmp_path / "log").read_text()


def test_a_redis_that_hangs_or_dies_makes_no_5xx_and_logs_outlive_the_process(
    champion: Workspace, tmp_path: Path
) -> None:
    admin = bearer("root", "admin")
    files = {"designation": (None, "Livre")}
    with running_redis(tmp_path) as redis:
        with served(champion, tmp_path / "log", REDIS_URL=redis.url) as service:
            post = {"url": f"{service.url}/predict", "files": files, "headers": bearer()}
            assert httpx.post(**post, timeout=60).is_success
            codes = []
            for trouble in (redis.hang, redis.go_on, redis.kill, redis.start):
                trouble()
                for _ in range(10):
                    codes.append(httpx.post(**post, timeout=60).status_code)
                    codes.append(
                        httpx.get(f"{service.url}/logs", headers=admin, timeout=60).status_code
                    )
            assert set(codes) == {200}
            wait_for_log(redis.port)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(120) == 0
        with served(champion, tmp_path / "log2", REDIS_URL=redis.url) as service:
            entries = httpx.get(f"{service.url}/logs", headers=admin, timeout=60).json()["entries"]
            assert any(entry["route"] == "/predict" for entry in entries)
            assert httpx.delete(f"{service.url}/logs", headers=admin, timeout=60).status_code == 204
            statistics = httpx.get(f"{service.url}/logs/stats", headers=admin, timeout=60).json()
            assert statistics["entries"] <= 2


def wait_for_log(port: int) -> None:
    """Waits until the service has written to the Redis that came back."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"LLEN product_classifier:request_log\r\n")
            if int(sock.recv(100).strip().lstrip(b":")) > 0:
                return
        time.sleep(0.1)
    raise AssertionError("nothing was written")
