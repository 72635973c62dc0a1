"""Runs all tests that need no container engine, in two lanes side by side: `python tests/lanes.py [pytest's options]`.

One lane after the other would leave a processor idle: many tests wait for a service, an alert or a schedule. The first
lane writes to the terminal; what the second one wrote follows at its end, whole.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
PYTEST = (str(ROOT / ".venv/bin/python"), "-m", "pytest")
AIRFLOW_PYTEST = (str(ROOT / "airflow/.venv/bin/python"), "-m", "pytest")
LIVE_MONITORING = tuple(
    f"tests/integration/{name}.py"
    for name in (
        *("test_monitoring_start", "test_alert_receivers"),
        *("test_alerts_live", "test_dashboard_panels"),
    )
)
NO_TESTS_COLLECTED = 5

Command = Sequence[str]
Lane = Sequence[Command]


def lanes(options: Sequence[str]) -> tuple[Lane, Lane]:
    """Gives the commands of both lanes; each takes about half of the time."""
    rest = [f"--ignore={path}" for path in LIVE_MONITORING]
    return (
        (
            (*PYTEST, "tests/unit", "tests/behavioral", *options),
            (*PYTEST, *LIVE_MONITORING, *options),
        ),
        (
            (*PYTEST, "tests/integration", *rest, *options),
            (*AIRFLOW_PYTEST, "tests/dags", *options),
        ),
    )


def _run(lane: Lane, output: IO[bytes] | None) -> list[int]:
    """Runs a lane's commands in turn; gives their exit codes."""
    return [
        subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode
        for command in lane
    ]


def run(first: Lane, second: Lane) -> int:
    """Runs both lanes.

    Returns:
        0 where every test that was found passed, 5 where none was found, else 1.
    """
    with tempfile.TemporaryFile() as output, ThreadPoolExecutor(1) as beside:
        other = beside.submit(_run, second, output)
        codes = [*_run(first, None), *other.result()]
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
        sys.stdout.buffer.flush()
    found = [code for code in codes if code != NO_TESTS_COLLECTED]
    return int(any(found)) if found else NO_TESTS_COLLECTED


if __name__ == "__main__":
    sys.exit(run(*lanes(sys.argv[1:])))
