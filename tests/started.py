"""What the tests of `product-classifier start` share: what runs, and a user who types what it printed."""

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psutil

from product_classifier.runtime.layout import STATE_VARIABLE


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
