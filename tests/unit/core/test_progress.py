import logging

import pytest

from product_classifier.core import progress
from product_classifier.core.progress import report_progress


def test_work_off_a_terminal_is_logged_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with report_progress("Reading", 3, "rows") as reporter:
        for _ in range(3):
            reporter.advance()
    [record] = caplog.records
    assert record.getMessage().startswith("Reading: 3/3 rows, ")


def test_long_work_is_logged_on_the_way(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "LOG_INTERVAL_SECONDS", 0.0)
    with report_progress("Reading", None, "rows") as reporter:
        reporter.advance(5)
        reporter.advance(5)
    assert [r.getMessage().split(",")[0] for r in caplog.records] == [
        "Reading: 5 rows",
        "Reading: 10 rows",
    ]


def test_short_work_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with report_progress("Reading", 1000, "rows") as reporter:
        for _ in range(1000):
            reporter.advance()
    assert len(caplog.records) == 1


def test_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with report_progress("Reading", 2, "rows") as reporter:
        reporter.advance(2)
        assert reporter.done == 2
        assert reporter.rate > 0
    assert capsys.readouterr().out == ""
