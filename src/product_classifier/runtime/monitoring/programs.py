"""The monitoring's programs: which are on this machine, under Debian's name or their own, and how to get them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

PROMETHEUS, ALERTMANAGER, NODE_EXPORTER = "prometheus", "alertmanager", "node-exporter"
STATSD_EXPORTER, GRAFANA = "statsd-exporter", "grafana"
# Folders that a user's PATH may lack.
_MORE_FOLDERS = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"))
_UPSTREAM = "https://prometheus.io/download/"
_VERSION_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Program:
    """One program: the names under which it is installed, Debian's package if it has one, the oldest that will do."""

    names: tuple[str, ...]
    package: str | None = None
    required: bool = True
    oldest: tuple[int, ...] | None = None


PROGRAMS: Mapping[str, Program] = {
    # The rules have `keep_firing_for`; an older one ends at its start.
    PROMETHEUS: Program(("prometheus",), "prometheus", oldest=(2, 42)),
    ALERTMANAGER: Program(("prometheus-alertmanager", "alertmanager"), "prometheus-alertmanager"),
    NODE_EXPORTER: Program(
        ("prometheus-node-exporter", "node_exporter"), "prometheus-node-exporter"
    ),
    # Where there is none, a bridge of ours takes its place.
    STATSD_EXPORTER: Program(("prometheus-statsd-exporter", "statsd_exporter"), required=False),
    GRAFANA: Program(("grafana", "grafana-server"), required=False),
}


def find_program(name: str) -> str | None:
    """Gives the path of a program of `PROGRAMS`, or None where it is not installed."""
    for candidate in PROGRAMS[name].names:
        if path := shutil.which(candidate) or shutil.which(candidate, path=_MORE_FOLDERS):
            return path
    return None


def find_programs() -> dict[str, str]:
    """Gives the paths of all programs that are installed and not too old."""
    found = {name: find_program(name) for name in PROGRAMS}
    return {name: path for name, path in found.items() if path and not _is_too_old(name, path)}


@lru_cache  # a program is not replaced while a command runs
def _is_too_old(name: str, path: str) -> bool:
    oldest = PROGRAMS[name].oldest
    version = program_version(path) if oldest else None
    return bool(oldest and version and version < oldest)


def program_version(path: str) -> tuple[int, ...] | None:
    """Asks one of Prometheus's family of programs for its version; None where it does not say."""
    try:
        done = subprocess.run(  # noqa: S603
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"version v?(\d+(?:\.\d+)+)", done.stdout + done.stderr)
    return tuple(map(int, found[1].split("."))) if found else None


def missing_programs(found: Iterable[str]) -> list[str]:
    """Lists the programs without which there is no monitoring."""
    present = set(found)
    return [name for name, one in PROGRAMS.items() if one.required and name not in present]


def install_hint(missing: Iterable[str]) -> str:
    """Says how the missing programs are installed."""
    names = list(missing)
    packages = " ".join(str(PROGRAMS[name].package) for name in names)
    described = ", ".join(_described(name) for name in names)
    return (
        f"Not installed here: {described}. On Debian and Ubuntu: `sudo apt-get install --no-install-recommends "
        f"{packages}`, then `sudo systemctl disable --now {packages}`, as the packages start services of their own on "
        f"the same ports. Elsewhere: put the programs of {_UPSTREAM} on PATH."
    )


def _described(name: str) -> str:
    oldest = PROGRAMS[name].oldest
    return f"{name} {'.'.join(map(str, oldest))} or newer" if oldest else name
