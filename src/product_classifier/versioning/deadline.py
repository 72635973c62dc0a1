"""A total time limit for what the DVC remote does."""

from collections.abc import Callable
from typing import TypeVar

from product_classifier.core import deadline
from product_classifier.core.errors import VersioningError

T = TypeVar("T")


class DeadlineExceeded(VersioningError, deadline.DeadlineExceeded):
    """The remote took too long. A thread may still hang on it: a process must not wait for it."""


def within(seconds: float, what: str, action: Callable[[], T]) -> T:
    """Runs an action and gives it up after a time; see `core.deadline.within`.

    Raises:
        DeadlineExceeded: the action took longer.
    """
    return deadline.within(seconds, what, action, DeadlineExceeded)
