"""What docker-compose.yml mounts out of the checkout for containers that run as users of their own.

git gives files the modes that the umask leaves: under 077 Prometheus, Grafana, Postgres and the gateway could not read
theirs. All of it is committed and none of it secret. What is secret lies elsewhere, with its own mode.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from product_classifier.core.errors import ConfigurationError

# run_compose_options.sh looks at the same ones.
MOUNTED = (
    "containers/gateway",
    "containers/postgres",
    "containers/s3",
    "monitoring/prometheus",
    "monitoring/statsd",
    "monitoring/grafana/provisioning",
    "monitoring/grafana/dashboards",
)
_READ, _ENTER = 0o044, 0o011


def open_mounted_files(root: Path) -> None:
    """Lets everybody read what is mounted; only what is closed is touched, and what a link points to never.

    Folders above them keep their modes: a mount needs no way through them, and without one other users of this machine
    still reach nothing.

    Raises:
        ConfigurationError: something closed belongs to another user; says what its owner has to do.
    """
    for path in _paths(root):
        with suppress(FileNotFoundError):  # a temporary file, gone since it was listed
            _open(path, root)


def _open(path: Path, root: Path) -> None:
    found = path.lstat()
    wanted = found.st_mode | _READ
    if found.st_mode & stat.S_IXUSR:  # a program, or a folder
        wanted |= _ENTER
    if stat.S_ISLNK(found.st_mode) or wanted == found.st_mode:
        return
    try:
        path.chmod(stat.S_IMODE(wanted))
    except PermissionError:
        raise ConfigurationError(
            f"Containers can't read {path}, and it belongs to another user. As that user run: "
            f"cd {root} && chmod -R go+rX {' '.join(MOUNTED)}"
        ) from None


def _paths(root: Path) -> Iterator[Path]:
    for name in MOUNTED:
        yield root / name
        for folder, folders, files in os.walk(root / name):
            yield from (Path(folder) / one for one in (*folders, *files))
