"""A real HTTP server that serves files and misbehaves on request."""

import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

DRIP_SECONDS = 0.02


class FileServer:
    """Files by path; `script[path]` holds how the next requests for it are answered, first one first."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = defaultdict(dict)
        self.script: dict[str, list[Callable[[Handler], None]]] = defaultdict(list)
        self.always: dict[str, Callable[[Handler], None]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.stopping = threading.Event()
        self.url = ""

    def etag(self, path: str) -> str:
        return '"' + hashlib.md5(self.files[path]).hexdigest() + '"'

    def gets(self, path: str) -> list[dict[str, str]]:
        return [headers for method, p, headers in self.requests if method == "GET" and p == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def file(self) -> str:
        return urlsplit(self.path).path

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.files.requests.append((self.command, self.file, headers))
        script = self.files.script[self.file] if self.command == "GET" else []
        act = script.pop(0) if script else self.files.always.get(self.file, serve())
        act(self)

    def status(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def start(self, code: int, length: int, etag: str | None, **headers: str) -> None:
        self.send_response(code)
        if etag:
            self.send_header("ETag", etag)
        for name, value in {**self.files.headers[self.file], **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True


def serve(
    *,
    cut_after: int | None = None,
    length_off_by: int = 0,
    drip: bool = False,
    use_range: bool = True,
    use_validators: bool = True,
    etag: str | None = None,
    without_etag: bool = False,
) -> Callable[[Handler], None]:
    """Serves the file, properly unless told otherwise."""

    def act(handler: Handler) -> None:
        content = handler.files.files.get(handler.file)
        if content is None:
            handler.status(404)
            return
        tag = None if without_etag else etag or handler.files.etag(handler.file)
        if use_validators and tag and handler.headers.get("If-None-Match") == tag:
            handler.send_response(304)
            handler.send_header("ETag", tag)
            handler.end_headers()
            return
        code, body, extra = 200, content, {}
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        wanted = handler.headers.get("If-Range")
        if match and use_range and (not use_validators or wanted in (None, tag)):
            first = int(match[1])
            if first >= len(content):
                handler.status(416, Content_Range=f"bytes */{len(content)}")
                return
            code, body = 206, content[first:]
            extra = {"Content_Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        handler.start(code, len(body) + length_off_by, tag, **extra)
        if handler.command == "GET":
            _send(handler, body, cut_after, drip)
        if length_off_by:
            handler.cut()

    return act


def _send(handler: Handler, body: bytes, cut_after: int | None, drip: bool) -> None:
    if drip:
        for byte in body:
            if handler.files.stopping.wait(DRIP_SECONDS):
                return
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                return
        return
    if cut_after is not None:
        handler.wfile.write(body[:cut_after])
        handler.cut()
        return
    try:
        handler.wfile.write(body)
    except OSError:
        handler.close_connection = True


def refuse(code: int, **headers: str) -> Callable[[Handler], None]:
    """Answers with a status and nothing else."""
    return lambda handler: handler.status(code, **headers)


def drip_headers(handler: Handler) -> None:
    """Sends header lines without end."""
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not handler.files.stopping.wait(DRIP_SECONDS):
            handler.wfile.write(b"X-Slow: 1\r\n")
            handler.wfile.flush()
    except OSError:
        pass
    handler.close_connection = True


@contextmanager
def running_server() -> Iterator[FileServer]:
    """Runs a server on a free port of this machine."""
    files = FileServer()
    handler = type("BoundHandler", (Handler,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        files.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
