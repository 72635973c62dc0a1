"""The rules: valid, tested from both sides, complete, and each with a runbook."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import promtool

RULES = sorted((promtool.PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((promtool.PROMETHEUS / "tests").glob("*.yml"))
GROUPS = {"service", "auth", "drift", "pipeline", "host", "monitoring"}
SECONDS_FOR_ALL_TESTS = 60
LONGEST_INTERVAL_SECONDS = 300
ALWAYS_FIRING = "Watchdog"
_COMPARED = re.compile(r"(?<![=!<>~])(?:<=|>=|<|>)\s*(\d+(?:\.\d+)?)")


RULE_GROUPS = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
ALL_RULES = [rule for group in RULE_GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}
of_each_alert = pytest.mark.parametrize("name", ALERTS)

TEST_FILES = {path.name: yaml.safe_load(path.read_text()) for path in TESTS}
CASES = [case for content in TEST_FILES.values() for case in content["tests"]]


def checks(kind: str) -> Iterator[dict[str, Any]]:
    """Gives all checks of a kind, `alert_rule_test` or `promql_expr_test`."""
    for case in CASES:
        yield from case.get(kind, [])


def seconds(duration: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([smh])", duration))


def test_rules_are_valid() -> None:
    promtool.require_promtool()
    said = promtool.ask("promtool", "check", "rules", "--lint-fatal", *map(str, RULES))
    assert said.count("SUCCESS") == len(RULES)


def test_rules_tests_pass_within_a_minute() -> None:
    promtool.require_promtool()
    started = time.perf_counter()
    promtool.ask("promtool", "test", "rules", *map(str, TESTS))
    assert time.perf_counter() - started < SECONDS_FOR_ALL_TESTS


def test_configuration_of_prometheus_is_valid(tmp_path: Path) -> None:
    promtool.require_promtool()
    said = (promtool.PROMETHEUS / "prometheus.yml").read_text()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        said.replace("/etc/prometheus/rules", str(promtool.PROMETHEUS / "rules")), "utf-8"
    )
    assert f"{len(RULES)} rule files found" in promtool.ask(
        "promtool", "check", "config", str(config)
    )


def test_alerts_have_names_of_their_own() -> None:
    assert len(ALERTS) == sum("alert" in rule for rule in ALL_RULES)


@of_each_alert
def test_alert_is_tested_where_it_fires_and_where_it_does_not(name: str) -> None:
    fires = {
        bool(test["exp_alerts"]) for test in checks("alert_rule_test") if test["alertname"] == name
    }
    assert fires == ({True} if name == ALWAYS_FIRING else {True, False})


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_series_is_tested(name: str) -> None:
    expected = [test["exp_samples"] for test in checks("promql_expr_test") if test["expr"] == name]
    assert expected
    assert all(expected)


@of_each_alert
def test_alert_says_who_what_and_where_to_look(name: str) -> None:
    labels, annotations = ALERTS[name]["labels"], ALERTS[name]["annotations"]
    assert labels.keys() == {"severity", "group"}
    assert labels["severity"] in ({"none"} if name == ALWAYS_FIRING else {"page", "ticket"})
    assert labels["group"] in GROUPS
    assert annotations["summary"].strip()
    assert len(annotations["description"]) > len("as above")
    assert annotations["runbook_url"] == f"docs/runbooks.md#{name.lower()}"


@of_each_alert
def test_threshold_is_the_first_number_that_the_expression_compares_with(name: str) -> None:
    annotations = ALERTS[name]["annotations"]
    compared = _COMPARED.findall(ALERTS[name]["expr"])
    if name in {"DVCPushFailed", "PipelineStale", "ExpectedAccuracyLow", "AirflowTasksStuck"}:
        # They compare two series; the number only sorts out what does not count.
        assert "threshold" not in annotations
        return
    assert annotations.get("threshold") == (compared[0] if compared else None)
    assert ("unit" in annotations) == ("threshold" in annotations)


def test_alerts_read_what_their_own_group_has_recorded_before() -> None:
    for group in RULE_GROUPS:
        so_far: set[str] = set()
        for rule in group["rules"]:
            read = {name for name in RECORDED if name in re.findall(r"[\w:]+", rule["expr"])}
            assert read <= so_far, f"{group['name']} reads {read - so_far} of another group"
            so_far |= {rule["record"]} if "record" in rule else set()


def test_samples_are_no_more_than_five_minutes_apart() -> None:
    for case in CASES:
        assert 0 < seconds(case["interval"]) <= LONGEST_INTERVAL_SECONDS


def test_each_file_of_tests_is_about_one_file_of_rules() -> None:
    read = [content["rule_files"] for content in TEST_FILES.values()]
    assert all(len(files) == 1 for files in read)
    assert {files[0] for files in read} == {f"../rules/{path.name}" for path in RULES}
