"""How old the pipeline's last success may be, as a metric that an alert compares with."""

import time

from prometheus_client import CollectorRegistry, Gauge

from product_classifier.core.schedule import longest_gap
from product_classifier.core.settings import Settings
from product_classifier.core.textfile import SUFFIX, read_metrics, try_write_metrics
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.airflow_api import DAG_ID

FILE = "limits"
LIMIT = "product_classifier_pipeline_staleness_limit_seconds"
SINCE = "product_classifier_pipeline_watched_since_timestamp_seconds"
INTERVALS = 2  # one missed run is told, a late one is not


def staleness_limit(settings: Settings) -> float | None:
    """Gives PIPELINE_STALE_AFTER_HOURS in seconds, else twice the longest interval of PIPELINE_SCHEDULE.

    Raises:
        ConfigurationError: PIPELINE_SCHEDULE can't be used.
    """
    # Looked at in any case: Airflow would refuse the DAG only later.
    gap = longest_gap(settings.pipeline_schedule) if settings.pipeline_schedule else None
    if settings.pipeline_stale_after_hours is not None:
        return settings.pipeline_stale_after_hours * 3600
    return INTERVALS * gap.total_seconds() if gap is not None else None


def write_limits(workspace: Workspace, settings: Settings) -> None:
    """Writes the limit and since when it is watched; removes both where there is none.

    A restart does not begin the watch anew: a pipeline that never succeeded is stale all the same.

    Raises:
        ConfigurationError: PIPELINE_SCHEDULE can't be used.
    """
    limit = staleness_limit(settings)
    if limit is None:
        (workspace.metrics / f"{FILE}{SUFFIX}").unlink(missing_ok=True)
        return
    known = read_metrics(workspace.metrics, FILE)
    registry = CollectorRegistry()
    since = known.get((SINCE, frozenset({("dag", DAG_ID)})), time.time())
    for name, text, value in (
        (LIMIT, "How old the last success may be.", limit),
        (SINCE, "Since when that limit is watched.", since),
    ):
        Gauge(name, text, ["dag"], registry=registry).labels(DAG_ID).set(value)
    try_write_metrics(workspace.metrics, FILE, registry)
