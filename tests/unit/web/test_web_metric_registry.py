"""Metrics of one process, and of several on one socket; gauges of processes that are gone."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, generate_latest

from metrics_page import series
from product_classifier.core.errors import ConfigurationError
from product_classifier.web import metric_registry
from product_classifier.web.metric_registry import FOLDER_VARIABLE, MetricRegistry

# Run where the variable is set from the start: prometheus_client reads it when it is imported.
WORKER = """
import json, os, sys
from prometheus_client import Counter, Gauge, Histogram, generate_latest
from product_classifier.web.metric_registry import MetricRegistry

registry = MetricRegistry()
counter = Counter("things", "Things.", ("kind",), registry=registry)
depth = Gauge("depth", "Waiting.", multiprocess_mode="livesum", registry=registry)
bundle = Gauge("bundle_info", "Live.", ("id",), multiprocess_mode="livemax", registry=registry)
held = {"depth": 0}
registry.watch(depth, lambda: held["depth"])
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "count":
        counter.labels("a").inc(order["by"])
    elif order["do"] == "depth":
        held["depth"] = order["to"]
    elif order["do"] == "bundle":
        bundle.labels(order["old"]).set(0)
        bundle.labels(order["new"]).set(1)
    print(json.dumps(generate_latest(registry).decode()), flush=True)
"""


class Worker:
    """A process that shares its metrics in a folder."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={**os.environ, FOLDER_VARIABLE: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def tell(self, do: str, **values: object) -> dict[str, float]:
        """Has it do something; gives what a scrape of it shows afterwards."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"do": do, **values}), file=self.process.stdin, flush=True)
        return series(json.loads(self.process.stdout.readline()))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def test_two_scrapes_may_meet_the_same_dead_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gauge_livesum_4000000.db").touch()

    def other_was_faster(pid: int, folder: str) -> None:
        Path(folder, f"gauge_livesum_{pid}.db").unlink()
        raise FileNotFoundError

    monkeypatch.setattr(metric_registry, "mark_process_dead", other_was_faster)
    metric_registry._forget_dead_processes(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_each_process_shows_the_sum_of_all(tmp_path: Path) -> None:
    with Worker(tmp_path) as first, Worker(tmp_path) as second:
        first.tell("count", by=2)
        second.tell("count", by=3)
        first.tell("depth", to=4)
        shown = second.tell("depth", to=5)
        assert shown == first.tell("show")
    assert shown['things_total{kind="a"}'] == 5
    assert shown["depth"] == 9


def test_what_a_dead_process_counted_stays_and_its_gauges_go(tmp_path: Path) -> None:
    with Worker(tmp_path) as first, Worker(tmp_path) as second:
        first.tell("count", by=2)
        first.tell("depth", to=4)
        first.kill()
        shown = second.tell("depth", to=1)
    assert shown['things_total{kind="a"}'] == 2
    assert shown["depth"] == 1


def test_a_process_does_not_take_over_gauges_of_an_earlier_one_with_its_number(
    tmp_path: Path,
) -> None:
    with Worker(tmp_path) as first:
        first.tell("count", by=2)
        first.tell("depth", to=4)
    [left] = tmp_path.glob("gauge_livesum_*.db")
    # What execs keeps its number: the file is that of a process which was this one's number before.
    program = (
        "import os, sys; os.rename(sys.argv[1], f'{sys.argv[2]}/gauge_livesum_{os.getpid()}.db');"
        "from product_classifier.web.metric_registry import MetricRegistry;"
        "from prometheus_client import Gauge, generate_latest; registry = MetricRegistry();"
        "Gauge('other', 'x', multiprocess_mode='livesum', registry=registry).set(1);"
        "sys.stdout.write(generate_latest(registry).decode())"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program, str(left), str(tmp_path)],
        env={**os.environ, FOLDER_VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert series(shown)["other"] == 1
    assert "depth" not in series(shown)


def test_only_the_live_one_of_an_information_metric_is_shown(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        shown = worker.tell("bundle", old="a", new="b")
    assert [name for name in shown if name.startswith("bundle_info")] == ['bundle_info{id="b"}']

    registry = MetricRegistry()
    bundle = Gauge("bundle_info", "Live.", ("id",), registry=registry)
    bundle.labels("a").set(0)
    bundle.labels("b").set(1)
    shown = series(generate_latest(registry).decode())
    assert [name for name in shown if name.startswith("bundle_info")] == ['bundle_info{id="b"}']


def test_alone_a_process_shows_its_own_memory_and_no_times_of_creation() -> None:
    registry = MetricRegistry()
    Counter("things", "Things.", registry=registry).inc()
    shown = series(generate_latest(registry).decode())
    assert shown["process_resident_memory_bytes"] > 0
    assert not [name for name in shown if "_created" in name]


class Faulty:
    """Two gauges of which the first can't be read at times."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.fault: Exception | None = None
        self.value = 1
        names = ("first", "second")
        gauges = [Gauge(n, "x", multiprocess_mode="livesum", registry=registry) for n in names]
        registry.watch(gauges[0], self.read)
        registry.watch(gauges[1], lambda: self.value)

    def read(self) -> float:
        if self.fault is not None:
            raise self.fault
        return self.value


def test_what_can_not_be_read_fails_no_scrape_and_hides_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = MetricRegistry()
    held = Faulty(registry)

    def scrape() -> tuple[float, float]:
        held.value += 1
        shown = series(generate_latest(registry).decode())
        return shown["first"], shown["second"]

    with caplog.at_level(logging.WARNING):
        assert scrape() == (2, 2)
        held.fault = KeyError("colour")
        assert [scrape(), scrape()] == [(2, 3), (2, 4)]
        assert [one.getMessage() for one in caplog.records] == [
            "A metric stays as it was: KeyError: 'colour'"
        ]
        held.fault = OSError("gone")
        scrape()
        held.fault = None
        assert scrape() == (6, 6)
        held.fault = OSError("gone")
        scrape()
    assert len(caplog.records) == 3  # once for each, and anew after an end


def test_others_are_shown_what_goes_on_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_registry, "_shared_folder", lambda: tmp_path)
    monkeypatch.setattr(metric_registry, "REFRESH_SECONDS", 0.001)
    registry = MetricRegistry()
    held = Faulty(registry)
    held.fault = ValueError("drift_x.json")
    seen: list[int] = []
    registry.before_scrape(lambda: seen.append(held.value))

    async def wait_for_three() -> None:
        async with registry.kept_fresh(), asyncio.timeout(10):
            while len(seen) < 3:
                await asyncio.sleep(0.001)

    asyncio.run(wait_for_three())
    assert seen[:3] == [1, 1, 1]


def test_a_file_of_somebody_else_fails_no_scrape(tmp_path: Path) -> None:
    for name in ("gauge_live_x.db", f"gauge_livesum_{10**30}.db"):
        (tmp_path / name).touch()
    metric_registry._forget_dead_processes(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["gauge_live_x.db"]


@pytest.mark.parametrize("folder", ["", "/nowhere/metrics", "/dev/null"])
def test_a_folder_that_can_not_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, folder)
    with pytest.raises(ConfigurationError, match=FOLDER_VARIABLE):
        MetricRegistry()
