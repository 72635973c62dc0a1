"""A real uvicorn in a thread, as `web.server` sets it up, and raw sockets to talk to it."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from product_classifier.web.server import listen, make_server


@dataclass
class LiveServer:
    """Where the server listens."""

    port: int
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@contextmanager
def live_server(
    app: FastAPI, grace_seconds: float = 5, delay_seconds: float = 0
) -> Iterator[LiveServer]:
    """Serves an app on a free port."""
    sock = listen("127.0.0.1", 0)
    # Else the kernel takes megabytes that the server never reads, and a count of bytes sent says little.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    server = make_server(app, grace_seconds, delay_seconds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield LiveServer(sock.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(60)
        sock.close()
        assert not thread.is_alive()


@dataclass
class RawAnswer:
    """One HTTP answer off a socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        return dict(json.loads(self.body))


def read_answer(sock: socket.socket) -> RawAnswer:
    """Reads one answer with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        assert chunk, f"the connection ended early: {data[:300]!r}"
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])
    }
    while len(body) < int(headers.get("content-length", 0)):
        chunk = sock.recv(65536)
        assert chunk, "the answer broke off"
        body += chunk
    return RawAnswer(int(lines[0].split(" ")[1]), headers, body)


def is_closed(sock: socket.socket) -> bool:
    """Waits for the other side to end the connection."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
