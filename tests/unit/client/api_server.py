"""A small real HTTP server that answers as the API does, and keeps what it was asked."""

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREDICTION = {
    "predictions": [{"label": "Piscine", "confidence": 0.91, "prediction": 2583}],
    "message": "ok",
    "top": [
        {"code": 2583, "name_fr": "Piscine", "name_en": "Pool", "confidence": 0.91},
        {"code": 10, "name_fr": "Livres", "name_en": "Books", "confidence": 0.05},
        {"code": 40, "name_fr": "Jeux", "name_en": "Games", "confidence": 0.01},
    ],
    "decision": "auto",
    "threshold": 0.8,
    "modalities": "text",
    "photo_error": None,
}
SHARED = {"bundle_id": "0123456789abcdef", "request_id": "r-1", "milliseconds": 12.5}


@dataclass
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict
    body: bytes

    def parts(self):
        """Gives the parts of a multipart body: (name, file name or None, content)."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + self.body)
        return [
            (
                part.get_param("name", header="content-disposition"),
                part.get_filename(),
                part.get_payload(decode=True),
            )
            for part in message.iter_parts()
        ]


@dataclass
class FakeAPI:
    """Tokens are `access-N`; `answers` are given before the usual ones: (status, body, headers)."""

    expires_in: float = 1800
    refuse_tokens: int = 0
    refuse_refresh: bool = False
    open_to_all: bool = False
    token_answer: tuple | None = None
    refresh_answer: tuple | None = None
    prediction: dict = field(default_factory=dict)  # what differs from PREDICTION
    shared: dict = field(default_factory=dict)  # what differs from SHARED
    answers: deque = field(default_factory=deque)
    received: list = field(default_factory=list)
    signed: int = 0
    url: str = ""

    def paths(self):
        return [request.path for request in self.received]

    def answer(self, request):
        if self.answers and request.path.startswith("/predict"):
            return self.answers.popleft()
        if request.path == "/token" and self.token_answer:
            return self.token_answer
        if request.path == "/token/refresh" and self.refresh_answer:
            return self.refresh_answer
        if request.path == "/token/refresh" and self.refuse_refresh:
            return 401, {"title": "Unauthorized", "detail": "used"}, {}
        if request.path in ("/token", "/token/refresh"):
            self.signed += 1
            return 200, self.tokens(), {}
        if request.path in ("/health", "/ready"):
            return 200, {"status": "ready", **SHARED}, {}
        bearer = request.headers.get("Authorization")
        known = self.open_to_all or bearer == f"Bearer access-{self.signed}"
        if not known or self.refuse_tokens:
            self.refuse_tokens = max(0, self.refuse_tokens - 1)
            problem = {"title": "Unauthorized", "status": 401, "detail": "no", "request_id": "r-9"}
            return 401, problem, {}
        if request.path == "/logout":
            return 204, b"", {}
        if request.path == "/predict/batch":
            failed = {"error": {"title": "Unprocessable", "detail": "no title"}}
            return 200, {"results": [PREDICTION, failed], "message": "ok", **SHARED}, {}
        return 200, {**PREDICTION, **SHARED, **self.prediction, **self.shared}, {}

    def tokens(self):
        return {
            "access_token": f"access-{self.signed}",
            "refresh_token": f"refresh-{self.signed}",
            "token_type": "bearer",
            "expires_in": self.expires_in,
        }


def serve(api):
    """Starts the server in a thread; gives it, with `api.url` set."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Received(self.command, self.path, dict(self.headers), body)
            api.received.append(request)
            status, content, headers = api.answer(request)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _handle

        def log_message(self, *_):
            """Stays silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
