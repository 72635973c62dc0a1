"""XML-RPC over a Unix socket: how the supervisor is talked to.

Supervisor's own transport leaves its socket open when nobody answers; this one closes it.
"""

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 90.0  # stopping a service is answered when it has ended


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        self.sock = connection


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, _host: Any) -> http.client.HTTPConnection:
        self._connection = "", _UnixConnection(self._path)
        return self._connection[1]


def call(path: Path, method: str, *arguments: Any) -> Any:
    """Calls one method of the server behind a socket.

    Raises:
        OSError: nobody answers.
        xmlrpc.client.Fault: the server refuses.
    """
    transport = _UnixTransport(str(path))
    with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as server:
        return getattr(server.supervisor, method)(*arguments)
