"""A total time limit. Read timeouts are no limit: a server that drips bytes never trips them."""

import contextvars
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from product_classifier.core.errors import ExitCode, ProductClassifierError

T = TypeVar("T")

_given_up = threading.Event()


class DeadlineExceeded(ProductClassifierError):
    """Something outside took too long. A thread may still hang on it: a process must not wait for it."""


def within(
    seconds: float,
    what: str,
    action: Callable[[], T],
    error: type[DeadlineExceeded] = DeadlineExceeded,
) -> T:
    """Runs an action in a thread of its own and gives it up after a time.

    An alarm signal would be shorter, and is wrong: its error can rise inside a destructor, where it
    is lost, or in the middle of a native library, which then crashes the process later.

    Args:
        seconds: The limit.
        what: Begins the error's sentence, as "Sending train to the DVC remote".
        action: What to run; given up, it goes on until its process ends.
        error: What to raise.

    Raises:
        DeadlineExceeded: the action took longer.
    """
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def _run() -> None:
        try:
            outcome.set_result(context.run(action))
        except BaseException as problem:
            outcome.set_exception(problem)

    threading.Thread(target=_run, name="deadline", daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError:
        if outcome.done():
            raise  # the action's own
        _given_up.set()
        raise error(f"{what} took longer than {seconds:g} s and was given up.") from None


def leave_what_hangs(code: object) -> None:
    """Ends the process at once where an action was given up: its threads would keep a normal exit waiting.

    Args:
        code: As `sys.exit` takes it. Where nothing was given up, nothing happens.
    """
    if not _given_up.is_set():
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    number = code if isinstance(code, int) else ExitCode.DONE if code is None else ExitCode.FAULT
    os._exit(number)
