"""When a stage runs and when it is skipped, with "Clear task" taken for what the user means by it.

`check` leaves its decision as XCom, with the generation it was made in: `dag_run.clear_number`,
which Airflow raises by one each time something of the run is cleared. `run` obeys a decision,
except where it was itself cleared after the decision was made: then somebody asked for this very
task, and it runs.

- clear `training_stage.run` (with downstream): it was cleared, and its check belongs to an older
  generation: it runs.
- clear `training_stage.check` (with downstream): the check decides anew in the same generation: its
  word holds.
- clear something else of the run: `run` was not cleared (its `max_tries` did not move): the
  decision holds.
"""

from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowSkipException


def decide(context: Context, *, changed: bool, reason: str) -> dict[str, Any]:
    """Gives what `check` leaves for `run`."""
    return {
        "changed": changed,
        "reason": reason,
        "clear_number": context["dag_run"].clear_number or 0,
        "force": bool(context["params"].get("force")),
    }


def was_cleared(context: Context) -> bool:
    """Tells whether this task was cleared after a try: clearing raises `max_tries`."""
    ti = context["ti"]
    return ti.max_tries > (ti.task.retries or 0)


def skip_unless_needed(context: Context, check_task_id: str) -> str:
    """Gives the reason to run.

    Raises:
        AirflowSkipException: nothing changed, and nobody cleared this task since that was found.
        AirflowException: the check left no decision.
    """
    decision = context["ti"].xcom_pull(task_ids=check_task_id)
    if not decision:
        raise AirflowException(f"{check_task_id} left no decision. Clear it, with downstream.")
    if decision["changed"]:
        return decision["reason"]
    generation = context["dag_run"].clear_number or 0
    if was_cleared(context) and generation > decision["clear_number"]:
        return "this task was cleared after the check, so it runs again"
    raise AirflowSkipException(decision["reason"])
