"""Ports: is one free, who holds it, which one would be."""

import errno
import socket
from collections.abc import Iterable, Mapping

import psutil

from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime.services import Service
from product_classifier.runtime.supervision import Supervisor

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


def listened_on(processes: Iterable[psutil.Process]) -> set[int]:
    """Lists the TCP ports that these processes listen on."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        found |= {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def next_free(port: int) -> int:
    """Finds the next free port above one."""
    return next(candidate for candidate in range(port + 1, 65536) if is_free(candidate))


def require_free(services: list[Service], supervisor: Supervisor) -> None:
    """Checks the ports of the services, but for those that run and have theirs.

    That one runs is not enough: it may be started again and again, as another program has its port.

    Raises:
        ConfigurationError: a port is taken; says by what, and how to choose another.
    """
    taken = [service for service in services if service.port and not is_free(service.port)]
    if not taken:
        return
    # Asked for after the ports, so that a service that comes up meanwhile is seen to have its own.
    running, ours = supervisor.running(), listened_on(supervisor.processes())
    _refuse_taken(
        (service.port, service.name, service.port_setting)
        for service in taken
        if service.port and not (service.name in running and service.port in ours)
    )


def require_free_ports(ports: Mapping[str, int]) -> None:
    """Checks the ports that settings name.

    Raises:
        ConfigurationError: a port is taken; says by what, and how to choose another.
    """
    _refuse_taken((port, setting, setting) for setting, port in ports.items())


def _refuse_taken(wanted: Iterable[tuple[int, str, str | None]]) -> None:
    taken = [
        f"Port {port} for {name} is taken by {holder(port)}. "
        f"Stop that program, or set {setting}={next_free(port)} in .env and start again."
        for port, name, setting in wanted
        if not is_free(port)
    ]
    if taken:
        raise ConfigurationError(" ".join(taken))
