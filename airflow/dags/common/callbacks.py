"""What happens when a task fails for good: one JSON line that says where to look."""

import json
import logging

from airflow.sdk import Context

logger = logging.getLogger(__name__)

_TRIAGE = {
    "configure": "A parameter is not usable: correct it in the trigger form and trigger again.",
    "check": "DVC could not tell what changed: run `product-classifier check STAGE` by hand.",
    "run": "The last ERROR line of this task's log says why. Correct it, then clear this task.",
    "shards": "The Param prediction_shards is not usable: trigger again with another.",
    "merge": "A part is missing or damaged: this log names it; clear `run` of that shard.",
    "version": "DVC could not record or push: check the remote, then clear this task only.",
    "deploy_auth": "auth did not come up: this log ends with its own; see `make logs S=auth`.",
    "deploy_serve": "serve did not come up: this log ends with its own; see `make logs S=serve`.",
    "smoke": "The API is up but its answer is wrong: the ERROR line says what was expected.",
    "drift": "No drift report was made: this log says why. Nothing else is affected; clear this task.",
    "gate": "No champion, and the candidate missed a floor: read reports/gate.json.",
}


def log_failure(context: Context) -> None:
    """Logs what failed and how to triage it, as one JSON line."""
    ti = context["ti"]
    error = context.get("exception")
    event = {
        "event": "task_failed",
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "try_number": ti.try_number,
        "reason": str(error) if error else "stopped from outside (marked failed, cleared, or lost)",
        "triage": _TRIAGE.get(ti.task_id.rpartition(".")[2], "Read this task's log."),
        "log": getattr(ti, "log_url", ""),
    }
    logger.error("%s", json.dumps(event, ensure_ascii=False))
