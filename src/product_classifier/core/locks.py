"""One at a time: a lock that the system frees however the process ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from product_classifier.core.errors import ProductClassifierError


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Holds the lock file `path` for the block.

    Args:
        path: Lock file; made if it is not there, never removed.
        what: What holds it, as "training".

    Raises:
        ProductClassifierError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProductClassifierError(
                f"Another {what} runs in this folder. Wait until it has ended."
            ) from None
        yield
