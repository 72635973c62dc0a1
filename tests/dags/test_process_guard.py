"""The guard ends everything a command started, however its parent ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
from common import process_guard
from live_airflow import alive, until

# A leader and a child; with "ignore" both ignore SIGTERM.
TREE = """
import signal, subprocess, sys, time
if sys.argv[1] == "ignore":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def guarded(lock, *command, grace="0.5"):
    return subprocess.Popen(
        [sys.executable, "-I", "-S", process_guard.__file__, str(lock), grace, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("code", [0, 1, 2, 99])
def test_the_exit_code_is_the_commands(tmp_path, code):
    guard = guarded(tmp_path / "lock", sys.executable, "-c", f"raise SystemExit({code})")
    assert guard.wait(timeout=60) == code


def test_a_command_that_a_signal_ended_gives_128_and_its_number(tmp_path):
    code = "import os; os.kill(os.getpid(), 9)"
    assert guarded(tmp_path / "lock", sys.executable, "-c", code).wait(timeout=60) == 137


@pytest.mark.parametrize("manner", ["obey", "ignore"])
def test_closing_the_pipe_ends_the_whole_group(tmp_path, manner):
    guard = guarded(tmp_path / "lock", sys.executable, "-c", TREE, manner)
    child = int(guard.stdout.readline())
    guard.stdin.close()
    expected = 128 + (signal.SIGTERM if manner == "obey" else signal.SIGKILL)
    assert guard.wait(timeout=60) == expected
    until(lambda: not alive(child), "the child to end", 60)


def test_sigkill_of_the_parent_ends_the_group(tmp_path):
    code = f"""
import subprocess, sys, time
guard = subprocess.Popen(
    [sys.executable, "-S", {process_guard.__file__!r}, {str(tmp_path / "lock")!r}, "0.5",
     sys.executable, "-c", {TREE!r}, "ignore"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    text=True, start_new_session=True)
print(guard.stdout.readline(), end="", flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not alive(child), "the group to end", 60)


def test_children_that_outlive_the_command_are_ended(tmp_path):
    code = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True)"
    )
    guard = guarded(tmp_path / "lock", sys.executable, "-c", code)
    child = int(guard.stdout.readline())
    assert guard.wait(timeout=60) == 0
    until(lambda: not alive(child), "the child to end", 60)


def test_a_second_try_waits_until_the_first_has_ended(tmp_path):
    lock = tmp_path / "lock"
    first = guarded(lock, sys.executable, "-c", TREE, "ignore", grace="1.5")
    first.stdout.readline()
    second = guarded(lock, sys.executable, "-c", "import time; print(time.monotonic(), flush=True)")
    told = time.monotonic()
    first.stdin.close()
    # The first ignores SIGTERM: it ends after its grace, and not before.
    assert float(second.stdout.readline()) - told >= 1.5
    assert first.wait(timeout=60) == 137
    assert second.wait(timeout=60) == 0
