"""Creates both Python environments: `python3 src/product_classifier/runtime/bootstrap.py`.

Run by the machine's own Python before anything is installed, so: standard library only, and
readable by old versions of Python up to the check that refuses them. Where the locks did not change
since the last time, it does nothing, and so needs no network.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "This project needs Python 3.11 or newer. "
        f"Found: {sys.version.split()[0]} at {sys.executable}. "
        "Install one and run `make setup PYTHON=/path/to/python3.11`."
    )

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

UV_VERSION = "0.13.8"
ROOT = Path(__file__).resolve().parents[3]
TOOLS = ROOT / ".tools"
UV = TOOLS / "bin" / "uv"
NEWEST = (3, 14)  # not yet: TensorFlow and Airflow have no wheels for it


def say(text: str) -> None:
    """Writes one line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(command: list[str], why: str, **environment: str) -> None:
    """Runs a command; on failure ends the program with what it said and what to do."""
    result = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, check=False
    )
    if result.returncode:
        code = result.returncode
        sys.exit(f"{why} failed (exit code {code}); the reason is above. Run `make setup` again.")


def install_uv() -> None:
    """Puts the pinned uv into `.tools`, if it is not there."""
    marker = TOOLS / f"uv-{UV_VERSION}"
    if UV.exists() and marker.exists():
        return
    say(f"Installing uv {UV_VERSION} into .tools ...")
    shutil.rmtree(TOOLS, ignore_errors=True)
    run(
        [sys.executable, "-m", "venv", str(TOOLS)],
        "Creating .tools (on Debian and Ubuntu: apt install python3-venv)",
    )
    pip = [str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    run([*pip, "--disable-pip-version-check", f"uv=={UV_VERSION}"], "Installing uv")
    marker.touch()


def fingerprint(project: Path) -> str:
    """Hashes what an environment is made from, and where and with what."""
    digest = hashlib.sha256(f"{ROOT} {sys.version_info[:2]}".encode())
    for name in ("pyproject.toml", "uv.lock"):
        digest.update((project / name).read_bytes())
    return digest.hexdigest()


def sync(project: Path, options: list[str], title: str) -> None:
    """Brings one environment to its lock; does nothing, without the network, where it is there."""
    stamp = TOOLS / f"{title}.synced"
    wanted = fingerprint(project)
    current = stamp.read_text() if stamp.exists() else ""
    if current == wanted and (project / ".venv" / "bin" / "python").exists():
        return
    say(f"Installing the {title} environment (the first time this takes minutes) ...")
    started = time.monotonic()
    command = [str(UV), "sync", "--frozen", "--project", str(project), *options]
    if not sys.stderr.isatty():
        command.append("--quiet")
    # uv fetches a Python of its own only where this machine's is newer than what the packages have
    # wheels for.
    fits = sys.version_info[:2] < NEWEST
    python = ["--python", sys.executable if fits else "3.13"]
    downloads = "never" if fits else "automatic"
    # An active environment of the caller's must not be taken for ours.
    why = f"Installing the {title} environment"
    run([*command, *python], why, UV_PYTHON_DOWNLOADS=downloads, VIRTUAL_ENV="")
    stamp.write_text(wanted)
    say(f"Installed the {title} environment in {time.monotonic() - started:.0f} s.")


def main() -> None:
    """Installs uv and both environments."""
    install_uv()
    sync(ROOT, ["--all-extras"], "project")
    sync(ROOT / "airflow", ["--all-groups"], "airflow")


if __name__ == "__main__":
    main()
