"""What Prometheus is told of the pushes to the DVC remote: one text file per stage, kept between commands.

Called by one command at a time, as every command that works on a workspace's versions.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from product_classifier.core.textfile import read_metrics, try_write_metrics
from product_classifier.core.workspace import Workspace

FAILURES = "product_classifier_dvc_push_failures_total"
LAST_PUSH = "product_classifier_dvc_last_push_timestamp_seconds"
LAST_FAILURE = "product_classifier_dvc_last_push_failure_timestamp_seconds"


class _Failures(Collector):
    def __init__(self, stage: str, count: float) -> None:
        self._stage, self._count = stage, count

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(FAILURES, "Pushes that failed.", labels=["stage"])
        family.add_metric([self._stage], self._count)
        yield family


@contextmanager
def noted_push(workspace: Workspace, stage: str) -> Iterator[None]:
    """Notes how a push ends; what it raises is raised."""
    try:
        yield
    except Exception:
        _note(workspace, stage, failures=1, moments={LAST_FAILURE: time.time()})
        raise
    _note(workspace, stage, moments={LAST_PUSH: time.time()})


def prepare_push_metrics(workspace: Workspace, stage: str) -> None:
    """Begins a stage's count: one that appears with its first failure would be no increase to Prometheus."""
    if not read_metrics(workspace.metrics, _file(stage)):
        _note(workspace, stage)


def _file(stage: str) -> str:
    return f"push-{stage}"


def _note(
    workspace: Workspace, stage: str, *, failures: int = 0, moments: dict[str, float] | None = None
) -> None:
    label = frozenset({("stage", stage)})
    known = read_metrics(workspace.metrics, _file(stage))
    registry = CollectorRegistry()
    registry.register(_Failures(stage, known.get((FAILURES, label), 0) + failures))
    for name, text in (
        (LAST_PUSH, "When a push last succeeded."),
        (LAST_FAILURE, "When a push last failed."),
    ):
        moment = (moments or {}).get(name, known.get((name, label)))
        if moment is not None:
            Gauge(name, text, ["stage"], registry=registry).labels(stage).set(moment)
    try_write_metrics(workspace.metrics, _file(stage), registry)
