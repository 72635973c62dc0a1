from datetime import timedelta

import pytest

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.schedule import PRESETS, longest_gap


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("@hourly", timedelta(hours=1)),
        ("@daily", timedelta(days=1)),
        ("@weekly", timedelta(days=7)),
        ("@monthly", timedelta(days=31)),
        ("@quarterly", timedelta(days=92)),
        ("@yearly", timedelta(days=366)),
        ("* * * * *", timedelta(minutes=1)),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("*/7 * * * *", timedelta(minutes=7)),
        ("10/20 * * * *", timedelta(minutes=20)),
        ("0 8,20 * * *", timedelta(hours=12)),
        ("30 8-16/4 * * *", timedelta(hours=16)),  # over night
        ("0 6 * * 1-5", timedelta(days=3)),  # over the weekend
        ("0 6 * * mon-fri", timedelta(days=3)),
        ("0 6 * * 7", timedelta(days=7)),
        ("0 0 1,15 * *", timedelta(days=17)),
        ("0 0 1 * mon", timedelta(days=7)),  # either will do
        ("0 0 13 * */2", timedelta(days=2)),
        ("0 0 1-31 * mon", timedelta(days=7)),  # every day of the month is no choice
        ("0 5 * jan-mar *", timedelta(days=276)),
        ("0 0 29 2 *", timedelta(days=1461)),
    ],
)
def test_the_longest_time_between_two_runs(schedule: str, expected: timedelta) -> None:
    assert longest_gap(schedule) == expected


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("", "0 fields"),
        ("@once", "1 fields"),
        ("daily", "1 fields"),
        ("0 5 * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("60 * * * *", "within 0 to 59"),
        ("0 24 * * *", "within 0 to 23"),
        ("0 0 0 * *", "within 1 to 31"),
        ("0 0 * 13 *", "within 1 to 12"),
        ("0 0 * * 8", "within 0 to 7"),
        ("*/0 * * * *", "within 0 to 59"),
        ("5-1 * * * *", "within 0 to 59"),
        ("x * * * *", "'x'"),
        ("0 0 31 2 *", "less than twice"),
    ],
)
def test_one_that_can_not_be_used_is_named(schedule: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        longest_gap(schedule)
    assert "PIPELINE_SCHEDULE" in str(error.value)
    assert repr(schedule) in str(error.value)
    assert problem in str(error.value)
    assert set(PRESETS) < set(str(error.value).replace(",", " ").replace(". ", " ").split())
