"""What the live tests stand on: they are not left out in silence, and their traffic is bounded."""

import http.client
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import monitoring_stack
import promtool
from product_forms import Item
from service_processes import Answer
from traffic import MAX_REQUESTS, Script, TooManyRequests, Traffic, run_script, traffic_running


def test_missing_programs_skip_the_tests_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REQUIRE_MONITORING", raising=False)
    monkeypatch.setattr(monitoring_stack, "find_programs", dict)

    with pytest.raises(pytest.skip.Exception, match=r"NOT TESTED.*apt-get install.*prometheus"):
        monitoring_stack.require_monitoring()


def test_missing_programs_are_a_failure_where_they_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUIRE_MONITORING", "1")
    monkeypatch.setattr(monitoring_stack, "find_programs", lambda: {"prometheus": "/bin/true"})

    with pytest.raises(pytest.fail.Exception, match="NOT TESTED.*alertmanager"):
        monitoring_stack.require_monitoring()


class Recorder:
    """A service that answers everything with 200 at once and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Answer:
        self.asked.append((method, path))
        return Answer(200, http.client.HTTPMessage(), b"{}", 0.0)


def traffic_to(recorder: Recorder, limit: int = MAX_REQUESTS) -> Traffic:
    services: Any = SimpleNamespace(serve=recorder, auth=recorder, token=lambda: "a-token")
    return Traffic(services, [Item("Livre", "roman", None)], max_requests=limit)


def test_traffic_stops_at_its_number_of_requests() -> None:
    recorder = Recorder()
    traffic = traffic_to(recorder, limit=7)

    run_script(traffic, Script.only(seconds=30, good=200, look=200))

    assert traffic.sent == len(recorder.asked) == 7
    with pytest.raises(TooManyRequests):
        traffic.good()


def test_traffic_stops_when_its_time_is_over() -> None:
    recorder, started = Recorder(), time.monotonic()

    run_script(traffic_to(recorder), Script.only(seconds=1.0, good=20, bad=10))

    assert time.monotonic() - started < 60
    assert 1 <= len(recorder.asked) <= 32


def test_traffic_stops_with_its_block() -> None:
    recorder, before = Recorder(), set(threading.enumerate())

    with traffic_running(traffic_to(recorder), Script.only(seconds=60, good=100)) as traffic:
        while not traffic.sent:
            time.sleep(0.01)
    sent = len(recorder.asked)

    assert set(threading.enumerate()) <= before  # those of other tests may have ended meanwhile
    assert len(recorder.asked) == sent > 0


def test_the_whole_script_sends_every_kind() -> None:
    recorder = Recorder()
    traffic = traffic_to(recorder)
    everything = Script(seconds=300).with_everything()

    for kind in ("good", "batch", "failing", "drift"):
        getattr(traffic, kind)()
    for kind in ("one_part", "look", "bad", "unauthorized", "signing_in", "attack"):
        getattr(traffic, kind)(0)

    assert {kind for kind, _ in traffic.statuses} == {
        *("good", "batch", "failing", "drift", "one part", "look", "bad"),
        *("unauthorized", "signing in", "attack"),
    }
    rates = {name: rate for name, rate in vars(everything).items() if name != "seconds"}
    assert min(rates.values()) > 0
    assert sum(rates.values()) * everything.seconds < MAX_REQUESTS


def alert_rules(folder: Path) -> dict[str, dict[str, Any]]:
    documents = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yml"))]
    groups = [group for document in documents for group in document["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_copied_rules_differ_only_in_how_long_alerts_stay(tmp_path: Path) -> None:
    monitoring_stack._copy_monitoring(tmp_path / "monitoring", 5)

    copied = alert_rules(tmp_path / "monitoring" / "prometheus" / "rules")
    committed = alert_rules(promtool.PROMETHEUS / "rules")
    assert copied.keys() == committed.keys()
    kept = {name for name, rule in committed.items() if "keep_firing_for" in rule}
    assert kept
    for name, rule in committed.items():
        assert copied[name] == rule | ({"keep_firing_for": "5s"} if name in kept else {})
