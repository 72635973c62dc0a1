"""Runs a command in a process group of its own and ends the whole group when the parent lets go.

    python process_guard.py LOCK_FILE GRACE_SECONDS COMMAND [ARGUMENT ...]  (standard input: a pipe)

The parent holds the other end of the pipe on standard input. Whatever ends the parent (stop,
time-out, SIGKILL of a task by Airflow five seconds after its SIGTERM), the pipe closes, and the
group gets SIGTERM, then SIGKILL. The lock keeps a new try from starting beside an old one that is
still ending. Standard library only: it starts in 20 ms.
"""

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

SIGNALLED = 128


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return True


def end_group(process: subprocess.Popen, grace_seconds: float) -> None:
    """Sends SIGTERM to the group of `process`, and SIGKILL to what outlives the grace period."""
    deadline = time.monotonic() + grace_seconds
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        while _group_lives(process.pid) and time.monotonic() < deadline:
            process.poll()  # reaps the leader: a zombie would keep the group alive
            time.sleep(0.05)
    process.wait()


def wait(process: subprocess.Popen, parent: int) -> bool:
    """Waits for the command; False where the parent let go of the pipe before it ended."""
    os.set_blocking(parent, False)
    with selectors.DefaultSelector() as selector:
        selector.register(parent, selectors.EVENT_READ)
        while process.poll() is None:
            if selector.select(timeout=0.1) and os.read(parent, 1) == b"":
                return False
    return True


def main(arguments: list[str]) -> int:
    """Runs the command; gives its exit code, 128 + n where signal n ended it."""
    lock_file, grace_seconds, *command = arguments
    # A signal to us is a wish of the parent's, and the pipe tells those.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Path(lock_file).parent.mkdir(parents=True, exist_ok=True)
    with open(lock_file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_restore_signals
        )
        if not wait(process, sys.stdin.fileno()):
            _tell(f"Stopping {command[0]} and all that it started.\n")
        end_group(process, float(grace_seconds))
    code = process.returncode
    return code if code >= 0 else SIGNALLED - code


def _tell(text: str) -> None:
    with contextlib.suppress(
        OSError
    ):  # the reader may be gone with the parent: that must not stop us
        os.write(sys.stderr.fileno(), text.encode())


def _restore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
