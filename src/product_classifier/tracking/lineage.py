"""The lineage tuple of a training: what it was made from, told to its record and to MLflow."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from product_classifier.core.settings import Settings, get_settings
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.latest import latest_record
from product_classifier.tracking.ledger import ask_again
from product_classifier.tracking.record import RunRecord
from product_classifier.tracking.upload import upload_or_keep

logger = logging.getLogger(__name__)

LINEAGE_FOLDER = "lineage"


def attach_lineage(
    workspace: Workspace,
    lineage: Mapping[str, Any],
    files: Iterable[Path] = (),
    *,
    settings: Settings | None = None,
) -> RunRecord | None:
    """Adds the lineage to the latest run's record and, if the server answers, to MLflow.

    Args:
        workspace: Where.
        lineage: Git commit and dirty flag, DVC hashes, parameters' hash and so on; nested is fine.
            Each value becomes a tag `lineage.<name>`.
        files: Kept with the run, as `dvc.lock`; they appear in MLflow's folder `lineage`.
        settings: Default: `get_settings()`.

    Returns:
        The record, or None where nothing was trained here.
    """
    record = latest_record(workspace)
    if record is None:
        logger.info("No training's record to add the lineage to.")
        return None
    record.add_lineage(lineage)
    for path in files:
        record.log_artifact(path, LINEAGE_FOLDER)
    ask_again(record.folder)
    if record.status != "RUNNING":
        upload_or_keep(record, settings or get_settings())
    return record
