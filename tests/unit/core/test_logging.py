import json
import logging
import sys

import pytest

from product_classifier.core.logging import JSONFormatter, configure_logging


def format_record(**extra: object) -> dict[str, object]:
    record = logging.makeLogRecord(
        {"name": "x", "msg": "%d of %s", "args": (3, "é"), "levelname": "INFO", **extra}
    )
    event: dict[str, object] = json.loads(JSONFormatter("train").format(record))
    return event


def test_event_is_one_json_line_with_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("train")
    logging.getLogger("product_classifier.x").info("first\nsecond", extra={"run_id": "r1"})
    [line] = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert event["message"] == "first\nsecond"
    assert (event["stage"], event["level"], event["run_id"]) == ("train", "INFO", "r1")
    assert event["time"].endswith("Z")


def test_what_json_can_not_hold_becomes_text() -> None:
    assert format_record(path=object)["path"] == "<class 'object'>"


def test_exception_is_part_of_the_event() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        event = format_record(exc_info=sys.exc_info())
    assert "ValueError: broken" in str(event["exception"])


def test_configuring_twice_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("train")
    configure_logging("train")
    logging.getLogger("product_classifier.x").info("once")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_level_is_a_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    configure_logging("train")
    logging.getLogger("product_classifier.x").info("hidden")
    logging.getLogger("product_classifier.x").warning("shown")
    assert "hidden" not in (out := capsys.readouterr().out)
    assert "shown" in out


def test_requests_of_libraries_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("ingest")
    logging.getLogger("httpx").info("GET https://user:password@host")
    assert capsys.readouterr().out == ""
