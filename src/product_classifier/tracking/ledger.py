"""How far a record's upload has come: `upload.json`, saved after each step the server confirmed."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from product_classifier.core.files import read_json, write_json_atomic

LEDGER_FILE = "upload.json"


class Ledger(BaseModel):
    """What the server at `tracking_uri` has of a run."""

    tracking_uri: str
    state: Literal["pending", "uploaded"] = "pending"
    mlflow_run_id: str | None = None
    experiment_id: str | None = None
    params_sent: bool = False
    tags: dict[str, str] = {}
    metrics_sent: int = 0  # points, in the order of metrics.jsonl
    artifacts: dict[str, str] = {}  # path → size and time of the file that was sent
    registry: str | None = None
    error: str | None = None  # what went wrong last

    def save(self, folder: Path) -> None:
        """Writes it beside the record."""
        write_json_atomic(folder / LEDGER_FILE, self.model_dump())


def read_ledger(folder: Path) -> Ledger | None:
    """Reads a record's ledger, or gives None where nothing was ever sent."""
    try:
        content: Any = read_json(folder / LEDGER_FILE)
        return Ledger.model_validate(content)
    except (FileNotFoundError, ValueError, ValidationError):
        return None


def mlflow_run_id(folder: Path) -> str | None:
    """Gives a record's id in MLflow, or None where the server was never reached."""
    ledger = read_ledger(folder)
    return ledger.mlflow_run_id if ledger else None


def is_uploaded(folder: Path) -> bool:
    """Says whether the server has all of a record."""
    ledger = read_ledger(folder)
    return ledger is not None and ledger.state == "uploaded"


def ask_again(folder: Path) -> None:
    """Makes a record pending again, because something was added to it."""
    ledger = read_ledger(folder)
    if ledger is not None and ledger.state == "uploaded":
        ledger.state = "pending"
        ledger.save(folder)


def fingerprint(path: Path) -> str:
    """Says cheaply whether a file is the one that was sent."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"
