"""Becomes a service, after ending what an earlier start of it left behind.

    python -m product_classifier.runtime.launch SPECIFICATION FINGERPRINT

The supervisor restarts a program whose leader died, but not the children that outlived it: a second
set would run beside them. So the group of the last start, kept in a file, is ended first. The
specification is a private JSON file, so that no secret is on a command line and no value has to be
quoted for the supervisor's configuration. The fingerprint is there for the supervisor to notice
that a service changed.
"""

import os
import signal
import sys
import time
from pathlib import Path

import psutil

from product_classifier.core.files import read_json, write_text_atomic
from product_classifier.runtime.layout import STATE_VARIABLE

GRACE_SECONDS = 10.0


def group_members(group: int, state: str) -> list[psutil.Process]:
    """Lists a group's living processes that carry our mark; a reused number is somebody else's."""
    members = []
    for process in psutil.process_iter():
        try:
            ours = os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
            if ours and process.environ().get(STATE_VARIABLE) == state:
                members.append(process)
        except (psutil.Error, OSError):
            continue
    return members


def end_processes(processes: list[psutil.Process], grace_seconds: float = GRACE_SECONDS) -> None:
    """Ends processes: SIGTERM, and SIGKILL for those that are left after the grace period."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        _gone, processes = psutil.wait_procs(processes, timeout=grace_seconds)
        if not processes:
            return


def main() -> None:
    """Ends leftovers, records the new group, and turns into the service."""
    path = Path(sys.argv[1])
    specification = read_json(path)
    environment = specification["environment"]
    record = path.with_suffix(".group")
    if record.exists():
        end_processes(group_members(int(record.read_text()), environment[STATE_VARIABLE]))
    write_text_atomic(record, str(os.getpgrp()))
    sys.stdout.write(f"--- started {time.strftime('%Y-%m-%dT%H:%M:%S%z')} ---\n")
    sys.stdout.flush()
    os.chdir(specification["directory"])
    command = specification["command"]
    os.execve(command[0], command, environment)  # noqa: S606


if __name__ == "__main__":
    main()
