"""Prometheus's and Alertmanager's own checkers, for tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dashboards import REPOSITORY

PROMETHEUS = REPOSITORY / "monitoring" / "prometheus"


def require_promtool() -> None:
    """Skips a test without promtool; fails it where REQUIRE_MONITORING=1 says that it is there."""
    _require("promtool", "prometheus")


def require_amtool() -> None:
    """Skips a test without amtool; fails it where REQUIRE_MONITORING=1 says that it is there."""
    _require("amtool", "prometheus-alertmanager")


def _require(program: str, package: str) -> None:
    if shutil.which(program):
        return
    reason = f"NOT TESTED: there is no {program}. Debian: apt-get install {package}"
    if os.environ.get("REQUIRE_MONITORING") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def ask(*command: str, folder: Path = PROMETHEUS, expected: int = 0) -> str:
    """Runs a checker; gives what it says."""
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    said = ended.stdout + ended.stderr
    assert ended.returncode == expected, said
    return said
