"""Says cheaply what there is to score now: a small file that the DVC stage `predict` depends on."""

from pathlib import Path
from typing import Any

from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.params import PredictParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.predict.inputs import fingerprint_inputs, resolve_inputs

PROBE_FILE = "predict.json"
SCHEMA = 1


def write_probe(workspace: Workspace, settings: Settings, _params: PredictParams) -> Path:
    """Writes what `predict` would score and where it would leave a copy; only if that changed.

    Raises:
        ConfigurationError: DATASET_PATH or IMAGES_PATH leads nowhere.
        DataValidationError: the products file or an archive of photos can't be read.
    """
    path = workspace.probes / PROBE_FILE
    content = _describe(workspace, settings)
    if _read(path) != content:
        write_json_atomic(path, content)
    return path


def _describe(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    copy = settings.predictions_path
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": None,
        "photos": None,
        "copy": str(copy) if copy else None,
    }
    inputs = resolve_inputs(workspace, settings)
    if inputs is None:
        return content
    fingerprint = fingerprint_inputs(inputs)
    content["dataset"] = {
        "kind": "ingested" if inputs.dataset_is_ingested else "file",
        "name": inputs.dataset.name,
        "sha256": fingerprint.dataset_sha256,
    }
    if inputs.photos is not None:
        content["photos"] = {
            "kind": "ingested" if inputs.photos_are_ingested else "folder or zip",
            "fingerprint": fingerprint.photos,
        }
    return content


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
