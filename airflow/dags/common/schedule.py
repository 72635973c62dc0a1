"""When the pipeline runs by itself: PIPELINE_SCHEDULE, a cron expression or a preset, in UTC; empty: only by hand."""

import os

from airflow.sdk import CronTriggerTimetable
from croniter import CroniterError, croniter

VARIABLE = "PIPELINE_SCHEDULE"
PRESETS = {  # core/schedule.py knows the same, for how old the last success may be
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}


def pipeline_schedule() -> CronTriggerTimetable | None:
    """Reads the schedule.

    Raises:
        ValueError: it is no cron expression of five fields and no preset.
    """
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        return None
    expression = PRESETS.get(given, given)
    try:
        if len(expression.split()) != 5:
            raise ValueError(f"{len(expression.split())} fields")
        croniter(expression).get_next()
    except (CroniterError, ValueError) as error:
        raise ValueError(
            f"{VARIABLE}: expected a cron expression of five fields, as '0 5 * * 1', or one of "
            f"{', '.join(PRESETS)}. Received: {given!r} ({error})."
        ) from error
    return CronTriggerTimetable(expression, timezone="UTC")
