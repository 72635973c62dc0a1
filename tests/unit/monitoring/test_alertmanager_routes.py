"""Who is told of which alert, and what is held back."""

import json
import re
from typing import Any

import pytest
import yaml

import promtool

CONFIG = promtool.REPOSITORY / "monitoring" / "alertmanager" / "alertmanager.yml"
CONTENT = yaml.safe_load(CONFIG.read_text())
RULE_FILES = sorted((promtool.PROMETHEUS / "rules").glob("*.yml"))
ALERTS = {
    rule["alert"]: rule
    for path in RULE_FILES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
WAITS = {
    "page": {"group_wait": "10s", "group_interval": "30s", "repeat_interval": "1h"},
    # Looked at each minute: at each fifth, a message that came a moment early would wait for the tenth.
    "heartbeat": {"group_wait": "0s", "group_interval": "1m", "repeat_interval": "5m"},
    "ticket": {"group_wait": "30s", "group_interval": "5m", "repeat_interval": "24h"},
}


def name(matchers: list[str]) -> str:
    (matcher,) = matchers
    return matcher.removeprefix('alertname="').removesuffix('"')


def inhibitions() -> list[tuple[str, str, list[str]]]:
    return [
        (name(rule["source_matchers"]), name(rule["target_matchers"]), rule["equal"])
        for rule in CONTENT["inhibit_rules"]
    ]


def waits(alert: str, key: str = "for") -> int:
    matched = re.fullmatch(r"(\d+)([smh])", ALERTS[alert][key])
    assert matched
    return int(matched[1]) * {"s": 1, "m": 60, "h": 3600}[matched[2]]


def routed_to(labels: dict[str, str]) -> str:
    words = [f"{key}={value}" for key, value in labels.items()]
    said = promtool.ask("amtool", "config", "routes", "test", f"--config.file={CONFIG}", *words)
    return said.splitlines()[0]  # then a warning about an address in amtool's own settings


def test_configuration_is_valid() -> None:
    promtool.require_amtool()
    assert "3 receivers" in promtool.ask("amtool", "check-config", str(CONFIG))


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_goes_to_the_receiver_of_its_severity(alert: str) -> None:
    promtool.require_amtool()
    labels = ALERTS[alert]["labels"] | {"alertname": alert}
    expected = "heartbeat" if alert == "Watchdog" else labels["severity"]
    assert routed_to(labels) == expected


def test_alert_without_a_severity_is_a_ticket() -> None:
    promtool.require_amtool()
    assert routed_to({"alertname": "Unknown"}) == "ticket"


@pytest.mark.parametrize("receiver", WAITS)
def test_pages_come_at_once_and_tickets_once_a_day(receiver: str) -> None:
    root = CONTENT["route"]
    routes = {route["receiver"]: route for route in (root, *root["routes"])}
    assert {key: routes[receiver][key] for key in WAITS[receiver]} == WAITS[receiver]


def test_every_receiver_but_the_heartbeat_writes_to_the_log_and_tells_the_end() -> None:
    log: dict[str, Any] = {"url": "http://alert-log:9094/", "send_resolved": True}
    found = {receiver["name"]: receiver for receiver in CONTENT["receivers"]}
    assert found.pop("heartbeat") == {"name": "heartbeat"}  # nobody, until a setting names one
    assert found.keys() == {"page", "ticket"}
    assert all(log in receiver["webhook_configs"] for receiver in found.values())


def test_inhibitions_are_about_alerts_that_exist_and_share_their_labels() -> None:
    tests = "\n".join(path.read_text() for path in (promtool.PROMETHEUS / "tests").glob("*.yml"))
    fired = [
        json.dumps(alert["exp_labels"]) + test["alertname"]
        for document in yaml.safe_load_all(tests.replace("rule_files:", "---\nrule_files:"))
        if document
        for case in document["tests"]
        for test in case.get("alert_rule_test", [])
        for alert in test["exp_alerts"]
    ]
    for source, target, equal in inhibitions():
        for alert in (source, target):
            examples = [text for text in fired if text.endswith(alert)]
            assert examples
            assert all(f'"{label}"' in text for text in examples for label in equal), alert


def test_held_back_is_only_what_no_cause_outlasts() -> None:
    # Not so DiskFilling by DiskAlmostFull: it begins first, and ends first.
    assert {(source, target) for source, target, _ in inhibitions()} == {
        ("ServiceDown", "TargetDown"),
        ("AvailabilityBurnFast", "AvailabilityBurnSlow"),
        ("LatencyBurnFast", "LatencyBurnSlow"),
    }


@pytest.mark.parametrize(
    ("source", "target"), [(source, target) for source, target, _ in inhibitions()]
)
def test_what_is_held_back_begins_later_than_its_cause(source: str, target: str) -> None:
    # Else it would have been sent, and its end would not be: Alertmanager's issue 2754.
    if "Burn" in source:  # no waiting: the same limits over longer windows
        assert source.replace("Fast", "Slow") == target
        assert waits(source, "keep_firing_for") < waits(target, "keep_firing_for")
    else:
        assert waits(source) < waits(target)
