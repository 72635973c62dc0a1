"""`product-classifier logs`: the services' logs, one or all, followed or not."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime.layout import Layout

POLL_SECONDS = 0.3


def choose_logs(layout: Layout, service: str | None) -> dict[str, Path]:
    """Lists the log files by service.

    Raises:
        ConfigurationError: no such service has a log.
    """
    found = {path.stem: path for path in sorted(layout.logs.glob("*.log"))}
    if service is None:
        return found
    if service not in found:
        names = ", ".join(found) or "none yet: nothing was started"
        raise ConfigurationError(
            f"No log of this service. Expected one of: {names}. Received: {service!r}."
        )
    return {service: found[service]}


def read_logs(files: dict[str, Path], lines: int) -> Iterator[str]:
    """Gives the last lines of each log, with the service's name where there are several."""
    for name, path in files.items():
        prefix = f"{name} | " if len(files) > 1 else ""
        content = path.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from (prefix + line for line in content[-lines:])


def _reopened(path: Path, file: TextIO) -> TextIO:
    if path.exists() and path.stat().st_size < file.tell():  # rotated
        file.close()
        return path.open(encoding="utf-8", errors="replace")
    return file


def follow_logs(files: dict[str, Path]) -> Iterator[str]:
    """Gives the lines written from now on, for ever."""
    opened: dict[str, TextIO] = {
        name: path.open(encoding="utf-8", errors="replace") for name, path in files.items()
    }
    for file in opened.values():
        file.seek(0, 2)
    return _new_lines(files, opened)


def _new_lines(files: dict[str, Path], opened: dict[str, TextIO]) -> Iterator[str]:
    try:
        while True:
            quiet = True
            for name, path in files.items():
                opened[name] = _reopened(path, opened[name])
                prefix = f"{name} | " if len(files) > 1 else ""
                while line := opened[name].readline():
                    quiet = False
                    yield prefix + line.rstrip("\n")
            if quiet:
                time.sleep(POLL_SECONDS)
    finally:
        for file in opened.values():
            file.close()
