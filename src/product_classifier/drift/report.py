"""Making the report: page, summary, metrics, and the link at the model's run."""

import logging
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from product_classifier.core.files import publish_directory, write_json_atomic, write_text_atomic
from product_classifier.core.settings import Settings
from product_classifier.core.textfile import SUFFIX, try_write_metrics
from product_classifier.core.workspace import Workspace
from product_classifier.drift import batch
from product_classifier.drift.comparison import Comparison
from product_classifier.drift.page import render_page
from product_classifier.tracking.reports import attach_report

logger = logging.getLogger(__name__)

FOLDER = "drift"
PAGE, SUMMARY = "report.html", "summary.json"
METRICS_NAME = "drift"


def make_report(workspace: Workspace, settings: Settings, comparison: Comparison) -> Path:
    """Writes `reports/drift/<kind>`, in place of the earlier one, tells the metrics and the model's run.

    MLflow being away is a warning: the run's record keeps the report for `sync-runs`.

    Returns:
        The folder.
    """
    target = workspace.reports / FOLDER / comparison.kind
    page = render_page(comparison)
    with publish_directory(target) as folder:
        write_text_atomic(folder / PAGE, page)
        write_json_atomic(folder / SUMMARY, comparison.to_json())
    if comparison.kind == batch.KIND:
        try_write_metrics(workspace.metrics, METRICS_NAME, batch_metrics(comparison))
    files = [target / PAGE, target / SUMMARY]
    shown_in = f"{FOLDER}/{comparison.kind}"
    if attach_report(
        workspace, settings, comparison.content_id, files, shown_in, comparison.tags()
    ):
        logger.info("MLflow has the report in %s of the run that made the model.", shown_in)
    return target


def forget_batch(workspace: Workspace) -> None:
    """Takes the metrics of an earlier batch away: of the last one there is nothing to say."""
    (workspace.metrics / f"{METRICS_NAME}{SUFFIX}").unlink(missing_ok=True)


def batch_metrics(comparison: Comparison) -> CollectorRegistry:
    """Gives the figures as the metrics `product_classifier_batch_*`."""
    registry = CollectorRegistry()
    figures = comparison.figures

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"product_classifier_batch_{name}", text, labels, registry=registry)

    psi = gauge("drift_psi", "Population stability index of the last scored batch", ("feature",))
    limit = gauge("drift_psi_limit", "From here on it is drift", ("feature",))
    for name, figure in figures.features.items():
        psi.labels(name).set(figure.psi)
        limit.labels(name).set(figure.limit)
    gauge("drift_products", "Products that the report looked at").set(figures.products)
    missing = gauge("drift_missing_ratio", "Products of the batch without this part", ("part",))
    usual = gauge("drift_missing_reference_ratio", "The same in the reference", ("part",))
    for part, share in figures.missing.items():
        missing.labels(part).set(share)
        usual.labels(part).set(figures.missing_reference[part])
    gauge("expected_accuracy_ratio", "Accuracy to be expected of that batch").set(
        figures.expected_accuracy
    )
    gauge("expected_accuracy_reference_ratio", "The same on the test split").set(
        figures.expected_accuracy_reference
    )
    gauge("expected_accuracy_limit_ratio", "Below this the batch's accuracy is low").set(
        figures.expected_accuracy_limit
    )
    gauge("drift_timestamp_seconds", "When the report was made").set(time.time())
    return registry
