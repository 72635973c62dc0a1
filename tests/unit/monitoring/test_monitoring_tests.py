"""What the live tests stand on: they are not left out in silence, and their traffic is bounded."""

import http.client
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

import monitoring_stack
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

    run_script(traffic_to(recorder), Script.only(seconds=0.5, good=20, bad=10))

    assert time.monotonic() - started < 10
    assert 2 <= len(recorder.asked) <= 20


def test_traffic_stops_with_its_block() -> None:
    recorder, before = Recorder(), threading.active_count()

    with traffic_running(traffic_to(recorder), Script.only(seconds=60, good=100)) as traffic:
        while not traffic.sent:
            time.sleep(0.01)
    sent = len(recorder.asked)

    assert threading.active_count() == before
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
