"""Reports on a model, made long after its training: kept with the run that made it, and shown in MLflow."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from product_classifier.core.deadline import within
from product_classifier.core.errors import ProductClassifierError
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.ledger import ask_again
from product_classifier.tracking.payload import MAX_TAG_CHARACTERS, shorten
from product_classifier.tracking.record import RunRecord, list_records
from product_classifier.tracking.registry import CONTENT_ID_TAG, bundle_content_id
from product_classifier.tracking.server import Server, ServerTooSlow, connect
from product_classifier.tracking.upload import upload_or_keep

logger = logging.getLogger(__name__)

_SEND_SECONDS = 120.0  # a report is a few MB


def attach_report(
    workspace: Workspace,
    settings: Settings,
    content_id: str,
    files: Sequence[Path],
    folder: str,
    tags: Mapping[str, Any],
) -> bool:
    """Adds files and tags to the run that made a bundle; a later report of that folder replaces the earlier one.

    Where the run's record is here, it is added to and uploaded, now or by `sync-runs`. Elsewhere, as in a workspace
    that only received the bundle, the server is told directly.

    Args:
        workspace: Where.
        settings: Say where the server is.
        content_id: Of the bundle.
        files: The report's.
        folder: Where they appear in MLflow.
        tags: Values become text.

    Returns:
        Whether the server has the report now. Never raises for it: a warning says what went wrong.
    """
    try:
        record = _record_of(workspace, content_id)
        if record is None:
            return _tell_server(settings, content_id, files, folder, tags)
        for path in files:
            record.log_artifact(path, folder)
        record.add_tags(tags)
        ask_again(record.folder)
    except (OSError, ValueError, ProductClassifierError) as error:
        logger.warning("The record of the model's run can't be added to: %s", error)
        return False
    return record.status != "RUNNING" and upload_or_keep(record, settings)


def _record_of(workspace: Workspace, content_id: str) -> RunRecord | None:
    found = [one for one in list_records(workspace.runs) if bundle_content_id(one) == content_id]
    return found[-1] if found else None


def _tell_server(
    settings: Settings,
    content_id: str,
    files: Sequence[Path],
    folder: str,
    tags: Mapping[str, Any],
) -> bool:
    def tell() -> bool:
        with connect(settings) as server:
            run_id = _find_run(server, settings.mlflow_experiment_name, content_id)
            if run_id is None:
                logger.info("MLflow has no run that made bundle %s.", content_id[:16])
                return False
            for path in files:
                server.client.log_artifact(run_id, str(path), folder)
            for name, value in tags.items():
                server.client.set_tag(run_id, name, shorten(str(value), MAX_TAG_CHARACTERS))
            return True

    try:
        return within(_SEND_SECONDS, "Sending the report to MLflow", tell, ServerTooSlow)
    except Exception as error:  # the report is made; only its link is missing
        logger.warning("MLflow does not have the report: %s", error)
        return False


def _find_run(server: Server, experiment: str, content_id: str) -> str | None:
    found = server.client.get_experiment_by_name(experiment)
    if found is None:
        return None
    query = f"tags.{CONTENT_ID_TAG} = '{content_id}'"
    runs = server.client.search_runs([found.experiment_id], query, max_results=1)
    return str(runs[0].info.run_id) if runs else None
