"""Ids, times and the sign of life of runs."""

import fcntl
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

_LOCK = ".running"


def new_run_id() -> str:
    """Makes a run id that sorts by start time, as `20261121T093000Z-ab12cd`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def now_ms() -> int:
    """Gives Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def iso_time(milliseconds: int) -> str:
    """Writes Unix milliseconds as UTC text, as `2026-11-21T09:30:00.125Z`."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def try_lock(folder: Path) -> int | None:
    """Takes the lock that a running process holds on its record; None where it lives."""
    # The kernel drops the lock with the process, however it ends; a process id may be reused.
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
