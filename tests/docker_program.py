"""The docker program, for tests that need a real engine."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def docker(*arguments: str, check: bool = True) -> str:
    """Runs it and gives what it printed; its complaint is part of a failure."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, cwd=ROOT)
    if check and done.returncode:
        said = f"{done.stdout}{done.stderr}".strip()
        pytest.fail(f"docker {' '.join(arguments)}: exit code {done.returncode}\n{said}")
    return done.stdout.strip()
