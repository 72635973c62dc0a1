"""What was given up keeps no process waiting."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from product_classifier.core.deadline import DeadlineExceeded, leave_what_hangs, within

def hang():
    # As a client's own pool does: Python waits for its threads at the end.
    with ThreadPoolExecutor() as pool:
        pool.submit(threading.Event().wait, 600).result()

try:
    within(0.05, "Work", hang)
except DeadlineExceeded as error:
    print(error)
leave_what_hangs({code})
sys.exit(9)
"""


@pytest.mark.parametrize(("code", "expected"), [("99", 99), ("None", 0), ("'text'", 1)])
def test_a_process_ends_with_its_code_although_a_thread_hangs(code: str, expected: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{code}", code)],
        capture_output=True,
        text=True,
        timeout=120,  # the thread would take ten minutes
        check=False,
    )
    assert done.returncode == expected, done.stderr
    assert done.stdout == "Work took longer than 0.05 s and was given up.\n"


def test_where_nothing_was_given_up_nothing_happens() -> None:
    program = (
        "from product_classifier.core.deadline import leave_what_hangs as l; l(1); print('on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "on\n")
