"""StatsD in, Prometheus out: the mapping's meaning, the protocol, the real process; and docs/metrics.md."""

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.runtime.monitoring import statsd_exporter
from product_classifier.runtime.monitoring.statsd_exporter import (
    StatsDMetrics,
    listen_udp,
    serve_metrics,
)
from product_classifier.runtime.monitoring.statsd_mapping import Rule, StatsDMapping, Target
from unused_ports import free_port

ROOT = Path(__file__).parents[3]
FILE = ROOT / "monitoring" / "statsd" / "mapping.yml"


@pytest.fixture
def mapping() -> StatsDMapping:
    return StatsDMapping.load(FILE)


def exposed(metrics: StatsDMetrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_names_of_airflow_become_metrics_and_the_rest_is_dropped(mapping: StatsDMapping) -> None:
    metrics = StatsDMetrics(mapping)
    metrics.take(
        b"airflow.scheduler_heartbeat:1|c\nairflow.scheduler_heartbeat:1|c\n"
        b"airflow.dag_processor_heartbeat:1|c\n"
        b"airflow.executor.running_tasks:2|g\n"
        b"airflow.executor.running_tasks.LocalExecutor:2|g\n"
        b"airflow.pool.open_slots.dvc:1|g\nairflow.pool.open_slots.default_pool:128|g\n"
        b"airflow.pool.open_slots:1|g\nairflow.pool.queued_slots.dvc:3|g\n"
        b"airflow.dag_processing.import_errors:0|g\n"
        b"airflow.ti.finish.ml_pipeline.training_stage__run.success:1|c\n"
        b"airflow.ti.finish:1|c\n"
        b"airflow.task.duration:1200.5|ms\nother.scheduler_heartbeat:1|c"
    )
    assert exposed(metrics) == {
        "airflow_scheduler_heartbeat_total": 2,
        "airflow_dag_processor_heartbeat_total": 1,
        "airflow_executor_running_tasks": 2,
        'airflow_pool_open_slots{pool="dvc"}': 1,
        'airflow_pool_open_slots{pool="default_pool"}': 128,
        'airflow_pool_queued_slots{pool="dvc"}': 3,
        "airflow_dag_import_errors": 0,
        'airflow_task_finishes_total{dag="ml_pipeline",state="success",task="training_stage__run"}': 1,
    }


def test_a_name_is_mapped_only_as_the_kind_that_it_is(mapping: StatsDMapping) -> None:
    assert mapping.find("airflow.scheduler_heartbeat", "gauge") is None
    assert mapping.find("airflow.pool.open_slots.a.b", "gauge") is None
    found = mapping.find("airflow.pool.running_slots.dvc", "gauge")
    assert found == Target(
        "airflow_pool_running_slots", "Slots of a pool in use.", (("pool", "dvc"),)
    )


def own_mapping(*rules: dict[str, object]) -> StatsDMetrics:
    return StatsDMetrics(StatsDMapping([Rule.model_validate(rule) for rule in rules]))


def test_gauges_go_up_and_down_by_signed_values() -> None:
    metrics = own_mapping({"match": "g", "name": "g"})
    for value, expected in (("5", 5), ("+3", 8), ("-10", -2), ("0", 0), ("-1", -1), ("2.5", 2.5)):
        metrics.take(f"g:{value}|g".encode())
        assert exposed(metrics)["g"] == expected


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The exporter's own clock: its one value is the time."""
    now = [1000.0]
    monkeypatch.setattr(statsd_exporter.time, "monotonic", lambda: now[0])
    return now


def test_what_is_not_sent_again_is_forgotten_after_its_time(clock: list[float]) -> None:
    metrics = own_mapping(
        {"match": "g.*", "name": "g", "labels": {"of": "$1"}, "ttl": "5m"},
        {"match": "c", "name": "c_total"},
    )
    metrics.take(b"g.a:5|g\ng.b:7|g\nc:1|c")
    clock[0] += 200
    metrics.take(b"g.b:8|g")
    clock[0] += 99
    assert exposed(metrics) == {'g{of="a"}': 5, 'g{of="b"}': 8, "c_total": 1}
    clock[0] += 1
    assert exposed(metrics) == {'g{of="b"}': 8, "c_total": 1}
    clock[0] += 10_000
    metrics.take(b"g.b:+2|g")  # a difference to something that is gone begins at 0
    assert exposed(metrics) == {'g{of="b"}': 2, "c_total": 1}


def test_a_series_that_is_gone_leaves_its_room(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statsd_exporter, "MOST_SERIES", 1)
    metrics = own_mapping({"match": "g.*", "name": "g", "labels": {"of": "$1"}, "ttl": "1h"})
    metrics.take(b"g.a:1|g\ng.b:1|g")
    clock[0] += 3600
    metrics.take(b"g.c:1|g")
    assert exposed(metrics) == {'g{of="c"}': 1}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("0s", None)]
)
def test_a_rule_says_how_long_a_series_lasts(text: str, seconds: int | None) -> None:
    assert Rule(match="a", name="a", ttl=text).ttl_seconds == seconds


def test_gauges_end_with_their_sender_and_counters_stay(mapping: StatsDMapping) -> None:
    kept = {rule.match_metric_type for rule in mapping.rules[:-1] if rule.ttl_seconds is None}
    ended = {rule.match_metric_type for rule in mapping.rules[:-1] if rule.ttl_seconds}
    assert (kept, ended) == ({"counter"}, {"gauge"})


def test_counters_are_scaled_by_their_sample_rate_and_timers_are_seconds() -> None:
    metrics = own_mapping(
        {"match": "c", "name": "c_total"},
        {"match": "t.*", "name": "t_seconds", "labels": {"of": "$1"}},
    )
    metrics.take(b"c:2|c|@0.5\nt.x:250|ms\nt.x:750|ms\nc:1|c|#tag:value")
    assert exposed(metrics) == {
        "c_total": 5,
        't_seconds_count{of="x"}': 2,
        't_seconds_sum{of="x"}': 1,
    }


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"c", b"c:", b"c:1", b":1|c", b"c:one|c", b"c:1|x", b"c:1|c|half", b"c:-1|c"),
        *(b"c:1|c|@0", b"c:1|c|@2", b"c:1|g\xff|", b"\xff\xfe", b"c:|c", b"c:nan|c", b"c:inf|c"),
    ],
)
def test_what_is_no_statsd_is_left_out_and_the_next_line_counts(line: bytes) -> None:
    metrics = own_mapping({"match": "c", "name": "c_total"})
    metrics.take(line + b"\nc:1|c")
    assert exposed(metrics) == {"c_total": 1}


def test_one_name_is_of_one_kind() -> None:
    metrics = own_mapping({"match": "a", "name": "a"})
    metrics.take(b"a:1|g\na:5|c")
    assert exposed(metrics) == {"a": 1}


def test_series_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(statsd_exporter, "MOST_SERIES", 10)
    metrics = own_mapping({"match": "a.*", "name": "a_total", "labels": {"of": "$1"}})
    metrics.take("\n".join(f"a.{n}:1|c" for n in range(100)).encode())
    metrics.take(b"a.3:1|c")
    found = exposed(metrics)
    assert len(found) == 10
    assert found['a_total{of="3"}'] == 2
    assert caplog.text.count("More than 10 series") == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        ("mappings: [", "while parsing"),
        ("- match: a", "expected `mappings:`"),
        ("mappings: []\ndefaults: {ttl: 1m}", "nothing else"),
        ("mappings: [{match: a, name: b, ttl: 1m30s}]", "ttl"),
        ("mappings: [{match: a, name: b, observer_type: summary}]", "observer_type"),
        ("mappings: [{match: a, name: 'b c'}]", "name"),
        ("mappings: [{match: '(', name: b, match_type: regex}]", "unterminated"),
    ],
)
def test_a_mapping_that_asks_for_more_than_is_known_is_refused(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    path = tmp_path / "mapping.yml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=re.escape(problem)) as error:
        StatsDMapping.load(path)
    assert str(path) in str(error.value)


def test_a_taken_port_is_named(mapping: StatsDMapping) -> None:
    port = free_port()
    with listen_udp("127.0.0.1", port), pytest.raises(RuntimeServiceError, match=str(port)):
        listen_udp("127.0.0.1", port)
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(RuntimeServiceError, match=str(port)),
    ):
        serve_metrics(StatsDMetrics(mapping), "127.0.0.1", port)


def get(port: int) -> str:
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                return str(answer.read().decode())
        except OSError:  # nobody listens yet, or the answer takes long
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[tuple[int, int, subprocess.Popen[str]]]:
    web, udp = free_port(), free_port()
    command = [sys.executable, "-m", "product_classifier", "statsd-exporter"]
    options = [
        f"--statsd.mapping-config={FILE}",
        f"--statsd.listen-udp=127.0.0.1:{udp}",
        f"--web.listen-address=127.0.0.1:{web}",
        "--statsd.listen-tcp=",
    ]
    with subprocess.Popen(
        [*command, *options], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield web, udp, process
        finally:
            process.kill()


def test_the_program_takes_packets_answers_and_ends_when_it_is_told_to(
    exporter: tuple[int, int, subprocess.Popen[str]],
) -> None:
    web, udp, process = exporter
    assert "airflow" not in get(web)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(50):
            sender.sendto(b"airflow.scheduler_heartbeat:1|c", ("127.0.0.1", udp))
            sender.sendto(f"noise.{number}:1|c".encode(), ("127.0.0.1", udp))
    deadline = time.monotonic() + 60
    while "airflow_scheduler_heartbeat_total 50.0" not in (text := get(web)):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    assert "# TYPE airflow_scheduler_heartbeat_total counter" in text
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "option",
    ["--statsd.listen-udp=9125x", "--web.listen-address=127.0.0.1", "--statsd.listen-tcp=:1"],
)
def test_options_that_can_not_be_used_end_it_with_2(tmp_path: Path, option: str) -> None:
    command = [sys.executable, "-m", "product_classifier", "statsd-exporter", option]
    result = subprocess.run(
        [*command, f"--statsd.mapping-config={FILE}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert option.partition("=")[0] in result.stdout


def test_docs_describe_exactly_what_the_mapping_makes() -> None:
    rules = [
        rule
        for rule in yaml.safe_load(FILE.read_text())["mappings"]
        if rule.get("action") != "drop"
    ]
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    section = text.partition("\n## Airflow")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", section, re.MULTILINE)
    documented = {
        name: (kind, set(labels.replace(" ", "").split(",")) - {""}) for name, kind, labels in rows
    }
    made = {
        rule["name"]: (rule["match_metric_type"], set(rule.get("labels", {}))) for rule in rules
    }
    assert documented == made


def test_everything_that_is_not_named_is_dropped() -> None:
    assert yaml.safe_load(FILE.read_text())["mappings"][-1] == {
        "match": ".",
        "match_type": "regex",
        "action": "drop",
        "name": "dropped",
    }
