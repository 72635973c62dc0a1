"""Ports for servers of tests: each is given out once among all runs of tests on this machine.

Asking the kernel for any port (port 0) and closing it again is a race: until the server listens, the kernel may give
the same port to another run, or to anybody's outgoing connection. These ports lie outside the range that the kernel
chooses from, and a lock in a file of the user's says which ones other runs have; it is gone with the process that
held it.
Where a server can listen on port 0 itself, that is simpler.
"""

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

# Below the ports of outgoing connections: Linux has 32768 to 60999, macOS 49152 to 65535.
FIRST, END = 12_000, 30_000
_ATTEMPTS = 1000

_given: set[int] = set()
_random = random.SystemRandom()  # a test that seeds `random` must not make two runs choose alike


def free_port() -> int:
    """Gives a port that nobody uses, for TCP and for UDP, and that no other caller gets while this process lives."""
    for _ in range(_ATTEMPTS):
        port = _random.randrange(FIRST, END)
        if port not in _given and _lock(port):
            _given.add(port)
            if _is_unused(port):
                return port
    raise RuntimeError(f"No free port was found between {FIRST} and {END}.")


def free_ports(count: int) -> list[int]:
    """Gives so many of them, all different."""
    return [free_port() for _ in range(count)]


@cache
def _locks() -> int:
    """Opens the file whose byte N is locked by the process that has port N; it stays open."""
    path = Path(tempfile.gettempdir()) / f"product-classifier-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _lock(port: int) -> bool:
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_unused(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
