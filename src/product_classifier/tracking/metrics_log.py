"""Metrics of a run on disk: `metrics.jsonl`, one line per call, only appended to."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class MetricEvent:
    """What one `log_metrics` call said."""

    at_ms: int  # Unix time, milliseconds
    step: int
    values: dict[str, float]


def append_metrics(path: Path, values: Mapping[str, float], step: int | None) -> None:
    """Appends one line in one write, so that a kill can tear the last line at most."""
    event = {
        "t": time.time_ns() // 1_000_000,
        "s": step or 0,
        "v": {name: float(value) for name, value in values.items()},
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(event).encode() + b"\n")
    finally:
        os.close(descriptor)


def read_metrics(path: Path) -> list[MetricEvent]:
    """Reads all lines in their order, but those that a kill has torn."""
    events = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            event = json.loads(line)
            events.append(MetricEvent(event["t"], event["s"], event["v"]))
        except (ValueError, KeyError, TypeError):
            continue
    return events
