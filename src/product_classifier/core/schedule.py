"""How far the runs of PIPELINE_SCHEDULE lie apart: Airflow starts them, this only says when one is missed."""

from datetime import date, timedelta
from itertools import pairwise

from product_classifier.core.errors import ConfigurationError

PRESETS = {  # as airflow/dags/common/schedule.py; a test holds the two to each other
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# Any years do: a leap year every four, and every weekday on every date within 28.
_FIRST_DAY = date(2001, 1, 1)
_DAYS_LOOKED_AT = 28 * 1461 // 4


def longest_gap(schedule: str) -> timedelta:
    """Gives the longest time between two runs of a schedule, in UTC.

    Args:
        schedule: A preset, or a cron expression of five fields: numbers, names, `*`, lists, ranges and steps.

    Raises:
        ConfigurationError: it is neither, or never comes.
    """
    days, times = _days_and_times(schedule)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    over_night = times[0] - times[-1]
    gaps += [later - earlier + over_night for earlier, later in pairwise(days)]
    if not gaps:
        raise _unusable(schedule, "it comes less than twice in 28 years")
    return max(gaps)


def _days_and_times(schedule: str) -> tuple[list[date], list[timedelta]]:
    """Gives the days on which a schedule comes, and the times since midnight of each of them."""
    fields = PRESETS.get(schedule.strip(), schedule).split()
    if len(fields) != 5:
        raise _unusable(schedule, f"{len(fields)} fields")
    try:
        minutes, hours = _numbers(fields[0], 0, 59), _numbers(fields[1], 0, 23)
        days, months = _numbers(fields[2], 1, 31), _numbers(fields[3], 1, 12, _MONTHS)
        weekdays = {day % 7 for day in _numbers(fields[4], 0, 7, _DAYS)}
    except ValueError as error:
        raise _unusable(schedule, str(error)) from error
    # As Airflow's croniter: where both the day of the month and the weekday are chosen, either will do.
    fits = any if len(days) < 31 and len(weekdays) < 7 else all
    looked_at = (_FIRST_DAY + timedelta(days=offset) for offset in range(_DAYS_LOOKED_AT))
    found = [
        day
        for day in looked_at
        if day.month in months and fits((day.day in days, day.isoweekday() % 7 in weekdays))
    ]
    times = [timedelta(hours=h, minutes=m) for h in sorted(hours) for m in sorted(minutes)]
    return found, times


def _numbers(field: str, lowest: int, highest: int, names: list[str] | None = None) -> set[int]:
    found: set[int] = set()
    for part in field.lower().split(","):
        spread, slash, step = part.partition("/")
        first, dash, last = spread.partition("-")
        start = lowest if first == "*" else _number(first, lowest, names)
        end = _number(last, lowest, names) if dash else start
        if first == "*" or (slash and not dash):
            end = highest
        pace = int(step) if slash else 1
        if pace < 1 or not lowest <= start <= end <= highest:
            raise ValueError(f"{part!r} is not within {lowest} to {highest}")
        found.update(range(start, end + 1, pace))
    return found


def _number(text: str, lowest: int, names: list[str] | None) -> int:
    if names and text in names:
        return names.index(text) + lowest
    return int(text)


def _unusable(schedule: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"PIPELINE_SCHEDULE: expected a cron expression of five fields, as '0 5 * * 1', or one of "
        f"{', '.join(PRESETS)}. Received: {schedule!r} ({problem})."
    )
