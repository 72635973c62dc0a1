"""XML-RPC over a Unix socket: how the supervisor is talked to.

Supervisor's own transport leaves its socket open when nobody answers; this one closes it.
"""

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 30.0
# Stopping a service is answered when it has ended, and SHUTDOWN_GRACE_SECONDS may be 600.
STOP_TIMEOUT_SECONDS = 660.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        self.sock = connection


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._timeout = timeout

    def make_connection(self, _host: Any) -> http.client.HTTPConnection:
        self._connection = "", _UnixConnection(self._path, self._timeout)
        return self._connection[1]


def call(path: Path, method: str, *arguments: Any) -> Any:
    """Calls one method of the server behind a socket.

    Raises:
        OSError: nobody answers.
        xmlrpc.client.Fault: the server refuses.
    """
    timeout = STOP_TIMEOUT_SECONDS if method.startswith("stop") else TIMEOUT_SECONDS
    transport = _UnixTransport(str(path), timeout)
    with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as server:
        return getattr(server.supervisor, method)(*arguments)
