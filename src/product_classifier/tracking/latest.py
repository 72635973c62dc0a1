"""Which run the workspace's candidate came from: `runs/latest.json`."""

from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.record import RunRecord

LATEST_FILE = "latest.json"


def set_latest(workspace: Workspace, run_id: str, content_id: str) -> None:
    """Says that the run `run_id` made the bundle `content_id`."""
    write_json_atomic(workspace.runs / LATEST_FILE, {"run_id": run_id, "content_id": content_id})


def latest_record(workspace: Workspace) -> RunRecord | None:
    """Opens the record of the latest run, or gives None where nothing was trained yet.

    Raises:
        TrackingError: `latest.json` names a run that has no readable record.
    """
    try:
        run_id = str(read_json(workspace.runs / LATEST_FILE)["run_id"])
    except (FileNotFoundError, KeyError, ValueError):
        return None
    return RunRecord.open(workspace.runs / run_id)
