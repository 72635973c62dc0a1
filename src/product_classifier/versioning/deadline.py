"""A total time limit. Read timeouts are no limit: a server that drips bytes never trips them."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from product_classifier.core.errors import VersioningError

T = TypeVar("T")


class DeadlineExceeded(VersioningError):
    """The remote took too long. A thread may still hang on it: a process must not wait for it."""


def within(seconds: float, what: str, action: Callable[[], T]) -> T:
    """Runs an action in a thread of its own and gives it up after a time.

    An alarm signal would be shorter, and is wrong: its error can rise inside a destructor, where it
    is lost, or in the middle of a native library, which then crashes the process later.

    Args:
        seconds: The limit.
        what: Begins the error's sentence, as "Sending train to the DVC remote".
        action: What to run; given up, it goes on until its process ends.

    Raises:
        DeadlineExceeded: the action took longer.
    """
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def _run() -> None:
        try:
            outcome.set_result(context.run(action))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=_run, name="deadline", daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError:
        if outcome.done():
            raise  # the action's own
        raise DeadlineExceeded(f"{what} took longer than {seconds:g} s and was given up.") from None
