"""The total time limit of a transfer."""

import threading
import time

import pytest

from product_classifier.core.errors import VersioningError
from product_classifier.versioning.deadline import DeadlineExceeded, within


def test_the_answer_comes_through() -> None:
    assert within(10, "Work", lambda: 7) == 7


@pytest.mark.parametrize("error", [VersioningError("refused"), TimeoutError("the action's own")])
def test_its_own_error_comes_through(error: Exception) -> None:
    def action() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        within(10, "Work", action)
    assert caught.value is error


def test_what_takes_longer_is_given_up_and_named() -> None:
    end = threading.Event()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="Sending took longer than 0.05 s"):
        within(0.05, "Sending", lambda: end.wait(120))
    assert time.monotonic() - started < 60
    end.set()


def test_the_shorter_of_two_limits_counts() -> None:
    end = threading.Event()
    with pytest.raises(DeadlineExceeded, match="inner took longer than 0.05 s"):
        within(30, "outer", lambda: within(0.05, "inner", lambda: end.wait(30)))
    with pytest.raises(DeadlineExceeded, match="outer took longer than 0.05 s"):
        within(0.05, "outer", lambda: within(30, "inner", lambda: end.wait(30)))
    end.set()
