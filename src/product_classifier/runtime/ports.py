"""Ports: is one free, who holds it, which one would be."""

import errno
import socket

import psutil

from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime.services import Service

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Tells whether a program of ours could listen on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return error.errno not in (errno.EADDRINUSE, errno.EACCES)
    return True


def holder(port: int) -> str:
    """Names the program that listens on a port, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f"{process.name()} (pid {process.pid}: {' '.join(process.cmdline())[:80]})"
    except psutil.Error:
        pass
    return "another program"


def next_free(port: int) -> int:
    """Finds the next free port above one."""
    return next(candidate for candidate in range(port + 1, 65536) if is_free(candidate))


def require_free(services: list[Service], running: set[str]) -> None:
    """Checks the ports of the services that are not running yet.

    Raises:
        ConfigurationError: a port is taken; says by what, and how to choose another.
    """
    taken = [
        f"Port {service.port} for {service.name} is taken by {holder(service.port)}. "
        f"Stop that program, or set {service.port_setting}={next_free(service.port)} in .env and "
        "start again."
        for service in services
        if service.port and service.name not in running and not is_free(service.port)
    ]
    if taken:
        raise ConfigurationError(" ".join(taken))
