"""Measures the README's quick start: clone, `make start`, and `make start` again without a change.

    .venv/bin/python benchmarks/quick_start.py

Clones this checkout's HEAD into an empty folder (with a space in its name), with ports of its own, runs
`make start` twice, prints the seconds of each, stops everything and removes the folder.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def timed(folder: Path, *command: str) -> float:
    """Runs a command and gives its wall seconds."""
    started = time.monotonic()
    subprocess.run(command, cwd=folder, check=True)
    return time.monotonic() - started


def main() -> None:
    """Clones, starts twice, stops."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--airflow-port", type=int, default=18080)
    parser.add_argument("--mlflow-port", type=int, default=15000)
    arguments = parser.parse_args()
    parent = Path(tempfile.mkdtemp(prefix="quick-start-"))
    folder = parent / "product classifier"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    ports = f"AIRFLOW_PORT={arguments.airflow_port}\nMLFLOW_PORT={arguments.mlflow_port}\n"
    (folder / ".env").write_text(ports)
    try:
        first = timed(folder, "make", "start")
        again = timed(folder, "make", "start")
    finally:
        subprocess.run(["make", "stop"], cwd=folder, check=False)
        shutil.rmtree(parent, ignore_errors=True)
    print(f"fresh clone to finished run: {first:.0f} s; again without changes: {again:.0f} s")


if __name__ == "__main__":
    main()
