"""The monitoring's programs: which are on this machine, under Debian's name or their own, and how to get them."""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PROMETHEUS, ALERTMANAGER, NODE_EXPORTER = "prometheus", "alertmanager", "node-exporter"
STATSD_EXPORTER, GRAFANA = "statsd-exporter", "grafana"
# Folders that a user's PATH may lack.
_MORE_FOLDERS = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"))
_UPSTREAM = "https://prometheus.io/download/"


@dataclass(frozen=True)
class Program:
    """One program: the names under which it is installed, and Debian's package where it has one."""

    names: tuple[str, ...]
    package: str | None = None
    required: bool = True


PROGRAMS: Mapping[str, Program] = {
    PROMETHEUS: Program(("prometheus",), "prometheus"),
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
    """Gives the paths of all programs that are installed."""
    found = {name: find_program(name) for name in PROGRAMS}
    return {name: path for name, path in found.items() if path}


def missing_programs(found: Iterable[str]) -> list[str]:
    """Lists the programs without which there is no monitoring."""
    present = set(found)
    return [name for name, one in PROGRAMS.items() if one.required and name not in present]


def install_hint(missing: Iterable[str]) -> str:
    """Says how the missing programs are installed."""
    names = list(missing)
    packages = " ".join(str(PROGRAMS[name].package) for name in names)
    return (
        f"Not installed here: {', '.join(names)}. On Debian and Ubuntu: `sudo apt-get install --no-install-recommends "
        f"{packages}`, then `sudo systemctl disable --now {packages}`, as the packages start services of their own on "
        f"the same ports. Elsewhere: put the programs of {_UPSTREAM} on PATH."
    )
