"""One command at a time: DVC fails on its own lock when two of its commands meet."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from product_classifier.core.errors import VersioningError
from product_classifier.core.workspace import Workspace

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


def state_folder(workspace: Workspace) -> Path:
    """Gives the folder of our notes beside DVC's own; losing it costs time, never data."""
    return workspace.root / ".dvc" / "tmp" / "product-classifier"


@contextmanager
def serialised(workspace: Workspace, wait_seconds: float) -> Iterator[None]:
    """Lets one command at a time work on a workspace's versions.

    The kernel drops the lock with the process, however that ends.

    Raises:
        VersioningError: another command held it for longer than `wait_seconds`.
    """
    path = state_folder(workspace) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        retry_while(
            BlockingIOError,
            lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
            wait_seconds,
        )
        yield


def retry_while(busy: type[Exception], action: Callable[[], T], wait_seconds: float) -> T:
    """Repeats `action` for as long as it raises `busy`, with growing pauses.

    Raises:
        VersioningError: it still did after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return action()
        except busy as error:
            if time.monotonic() >= deadline:
                raise VersioningError(
                    f"DVC is busy: another command held its lock for {wait_seconds:g} s. "
                    "Wait for it to end, or raise DVC_LOCK_WAIT_SECONDS."
                ) from error
        time.sleep(min(pause, max(deadline - time.monotonic(), 0)))
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
