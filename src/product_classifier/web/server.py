"""How a service listens: one process, uvicorn, a graceful end."""

import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from h11 import RemoteProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

from product_classifier.core.errors import ProductClassifierError, RuntimeServiceError
from product_classifier.web.leaving import LeavingServer

logger = logging.getLogger(__name__)

BUFFER_BYTES = 16 * 1024  # of an unfinished header block; the guard refuses from 8 KB
READ_BYTES = (
    64 * 1024
)  # read and parsed at a time: 256 KB of one-byte chunks would stop all others for a second
KEEP_ALIVE_SECONDS = 15
HEADER_SECONDS = 15.0
STALL_SECONDS = (
    30.0  # in which a caller takes `STALL_BYTES` of an answer that waits for it, or is cut off
)
STALL_BYTES = 16 * 1024
MAX_CONNECTIONS = 2000
BACKLOG = 512


class GuardedH11Protocol(H11Protocol):
    """uvicorn's protocol with what it lacks: deadlines both ways, a limit that answers, one shape of errors."""

    _header_timer: Any = None
    _stall_timer: Any = None

    def connection_made(self, transport: Any) -> None:
        """Starts the clock for the first request."""
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # asyncio's sockets read so much; others ignore it
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "Service Unavailable", "Too many connections.")
            return
        self._start_header_timer()

    def _start_header_timer(self) -> None:
        self._stop_header_timer()
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        # Dripped headers would hold the connection for ever: each byte stops uvicorn's own keep-alive clock.
        if not self.transport.is_closing():
            self._refuse(408, "Request Timeout", "The headers did not arrive in time.")

    def data_received(self, data: bytes) -> None:
        """Reads on; stops the clock once a request is there."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_header_timer()

    def on_response_complete(self) -> None:
        """Starts the clock for the next request on this connection."""
        super().on_response_complete()
        waiting = self.cycle is None or self.cycle.response_complete
        if waiting and not self.transport.is_closing():
            self._start_header_timer()

    def pause_writing(self) -> None:
        """Starts the clock for a caller who takes too little: its answer holds a place and memory."""
        super().pause_writing()
        self._stop_stall_timer()
        self._watch_answer()

    def _watch_answer(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._check_progress, waiting)

    def _check_progress(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() < STALL_BYTES:
            self.transport.abort()
        else:
            self._watch_answer()

    def resume_writing(self) -> None:
        """Stops that clock."""
        self._stop_stall_timer()
        super().resume_writing()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clocks."""
        self._stop_header_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP request, in the shape of all errors."""
        error = sys.exc_info()[1]
        hint = error.error_status_hint if isinstance(error, RemoteProtocolError) else 400
        if hint == 431:
            self._refuse(431, "Request Header Fields Too Large", "The headers are too large.")
        else:
            self._refuse(400, "Bad Request", "This is not a valid HTTP/1.1 request.")

    def _refuse(self, status: int, title: str, detail: str) -> None:
        cycle = self.cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            self.transport.close()  # an answer is on its way: another one would be taken for a part of it
            return
        body = (
            f'{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}",'
            '"instance":"","request_id":null}'
        )
        head = (
            f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n"
        )
        self.transport.write((head + body).encode("ascii"))
        self.transport.close()


class _NoColour(logging.Filter):
    """Takes away what uvicorn adds for terminals."""

    def filter(self, record: logging.LogRecord) -> bool:
        vars(record).pop("color_message", None)
        return True


def listen(host: str, port: int) -> socket.socket:
    """Takes the address; nobody is let in before the server listens.

    Raises:
        RuntimeServiceError: it is taken or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP named outright: asyncio turns Nagle's algorithm off only then, and with it each answer takes 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise RuntimeServiceError(
            f"Can't listen on {host}:{port}: {error.strerror or error}."
        ) from None
    sock.set_inheritable(False)
    return sock


def make_server(app: FastAPI, grace_seconds: float, delay_seconds: float = 0) -> uvicorn.Server:
    """Sets uvicorn up for an app; its logs go where ours go."""
    config = uvicorn.Config(
        app,
        http=GuardedH11Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the address is ours to judge: web/proxies.py
        backlog=BACKLOG,
        h11_max_incomplete_event_size=BUFFER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )
    return LeavingServer(config, app, delay_seconds)


def run_service(
    app_factory: Callable[[], FastAPI],
    host: str,
    port: int,
    grace_seconds: float,
    delay_seconds: float = 0,
) -> None:
    """Runs a service until SIGTERM or SIGINT; requests in flight are answered within `grace_seconds`.

    Behind a gateway it first goes on for `delay_seconds`, while its /ready says no: the gateway would else send it
    requests that nobody answers.

    Raises:
        ProductClassifierError: the app can't be built or started, or the address can't be had.
    """
    logging.getLogger("uvicorn.error").addFilter(_NoColour())
    sock = listen(host, port)
    try:
        app = app_factory()
        server = make_server(app, grace_seconds, delay_seconds)
        # uvicorn raises the signal again after its graceful end: by then it must mean nothing.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        try:
            server.run(sockets=[sock])
        except SystemExit:
            error = getattr(app.state, "startup_error", None)
            if isinstance(error, ProductClassifierError):
                raise error from None
            raise RuntimeServiceError("The service did not start: see the log above.") from None
    finally:
        sock.close()
