"""A total time limit. Read timeouts are no limit: a server that drips bytes never trips them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from product_classifier.core.errors import VersioningError

_RING_AGAIN_SECONDS = 0.5


class DeadlineExceeded(VersioningError):
    """The remote took too long. Threads may still hang on it: a process must not wait for them."""


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Ends the block with an error after `seconds`; only in the main thread.

    Raises:
        DeadlineExceeded: the block took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def _ring(_signum: int, _frame: FrameType | None) -> None:
        raise DeadlineExceeded(f"{what} took longer than {seconds:g} s and was given up.")

    previous = signal.signal(signal.SIGALRM, _ring)
    # It rings again: on its way out the first error may meet a thread pool that waits for the same
    # dead remote.
    outer, again = signal.setitimer(signal.ITIMER_REAL, seconds, _RING_AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, outer, again)
        signal.signal(signal.SIGALRM, previous)
