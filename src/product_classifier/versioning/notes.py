"""Notes between commands: what a stage started from, what the remote is known to hold."""

from pathlib import Path
from typing import Any

from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.workspace import Workspace
from product_classifier.versioning.index import StateEntry
from product_classifier.versioning.lockfile import LockFile
from product_classifier.versioning.serial import state_folder


def _started(workspace: Workspace, stage: str) -> Path:
    return state_folder(workspace) / f"started-{stage}.json"


def _recorded(workspace: Workspace, stage: str) -> Path:
    return state_folder(workspace) / f"recorded-{stage}.json"


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError):
        return None


def note_start(workspace: Workspace, stage: str, inputs: dict[str, Any]) -> None:
    """Keeps what a stage is about to read, so that a change while it runs can be seen."""
    write_json_atomic(_started(workspace, stage), inputs)


def changed_since_start(workspace: Workspace, stage: str, inputs: dict[str, Any]) -> list[str]:
    """Names the inputs that differ from what they were when the stage was found to need a run."""
    before = _read(_started(workspace, stage))
    if not isinstance(before, dict):
        return []
    return sorted(key for key in before if before[key] != inputs.get(key))


def _promise(lock: LockFile, stage: str, address: str) -> dict[str, Any]:
    locked = lock.stages.get(stage)
    outs = {entry.path: entry.md5 for entry in locked.outs} if locked else {}
    return {"remote": address, "outs": outs}


def note_recorded(workspace: Workspace, lock: LockFile, stage: str, address: str) -> None:
    """Keeps that the remote holds a stage's outputs, and forgets its start."""
    write_json_atomic(_recorded(workspace, stage), _promise(lock, stage, address))
    _started(workspace, stage).unlink(missing_ok=True)


def is_recorded(workspace: Workspace, lock: LockFile, stage: str, address: str) -> bool:
    """Says whether the remote is known to hold what `dvc.lock` says of a stage."""
    return bool(_read(_recorded(workspace, stage)) == _promise(lock, stage, address))


def note_origin(workspace: Workspace, entry: StateEntry) -> None:
    """Keeps the state that an isolated workspace started from: it knows what is not here."""
    names = ("candidate", "run_id", "mlflow_run_id", "lock_id")
    write_json_atomic(_origin(workspace), {name: getattr(entry, name) for name in names})


def read_origin(workspace: Workspace) -> dict[str, Any]:
    """Gives candidate, run ids and lock id of the state that was started from; empty where none was."""
    content = _read(_origin(workspace))
    return content if isinstance(content, dict) else {}


def _origin(workspace: Workspace) -> Path:
    return state_folder(workspace) / "origin.json"
