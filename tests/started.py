"""What the tests of `product-classifier start` share: free ports, what runs, and a user who types what it printed."""

import itertools
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil

from product_classifier.runtime.layout import STATE_VARIABLE


def free_ports(count: int) -> list[int]:
    """Finds so many ports that nobody uses now, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def run_printed_commands(root: Path, printed: str) -> tuple[str, Any]:
    """Runs what `start` printed as a user would, in a shell; gives the token and the prediction."""
    lines = printed[printed.index("A token and a prediction, in") :].splitlines()
    commands = list(itertools.takewhile(lambda line: line.startswith("  "), lines[1:]))
    done = subprocess.run(
        ["bash", "-c", "\n".join([*commands, "echo", 'echo "$TOKEN"'])],
        cwd=root,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    prediction, token = done.stdout.strip().splitlines()
    return token, json.loads(prediction)


def marked_processes(root: Path) -> list[psutil.Process]:
    """Lists the living processes of a checkout's embedded run, asked of the machine and not of the code under test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(STATE_VARIABLE) == str(root / ".state"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
