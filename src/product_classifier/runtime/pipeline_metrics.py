"""What Prometheus is told of a workspace: rows, photos, scored products, the champion, what MLflow lacks.

One text file per stage, read off what the stage has published. They are written anew at the end of each command that
may have changed it, and all of them when the services start.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from product_classifier.core.bundle import read_manifest
from product_classifier.core.champion_history import champion_history
from product_classifier.core.files import read_json
from product_classifier.core.releases import RELEASE_ID_DIGITS
from product_classifier.core.settings import Settings
from product_classifier.core.textfile import try_write_metrics
from product_classifier.core.workspace import Workspace

logger = logging.getLogger(__name__)

PREFIX = "product_classifier_"

Values = dict[tuple[str, ...], float]  # values of the labels -> value
CHAMPION_METRICS = (
    *("accuracy", "macro_f1", "weighted_f1"),
    *("calibration_error", "coverage", "auto_precision"),
)
DATA_VERSION_DIGITS = 12


class _Figures:
    """Gauges of one file."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def add(self, name: str, text: str, values: Values, *labels: str) -> None:
        """Adds a gauge with the values of its labels."""
        gauge = Gauge(PREFIX + name, text, labels, registry=self.registry)
        for given, value in values.items():
            (gauge.labels(*given) if labels else gauge).set(value)


def _ingest(workspace: Workspace) -> _Figures:
    figures = _Figures()
    manifest = _read(workspace.raw / "manifest.json")
    rows: Values = {
        (split,): manifest[split] for split in ("labelled", "unlabelled") if split in manifest
    }
    figures.add("imported_rows", "Rows of the imported catalogue.", rows, "split")
    if "photos" in manifest:
        figures.add("imported_photos", "Its usable photos.", {(): manifest["photos"]})
    if version := _data_version(workspace):
        text = "Always 1, for the imported catalogue."
        figures.add("data_info", text, {(version,): 1}, "version")
    return figures


def _data_version(workspace: Workspace) -> str | None:
    from product_classifier.versioning.lockfile import LOCK_FILE, parse_lock

    path = workspace.root / LOCK_FILE
    if not path.exists():
        return None
    entry = parse_lock(path.read_bytes(), str(path)).out("data/raw")
    return entry.md5[:DATA_VERSION_DIGITS] if entry else None


def _train(workspace: Workspace) -> _Figures:
    from product_classifier.tracking.upload import pending_records

    figures = _Figures()
    text = "Training records that the MLflow server does not have."
    figures.add("mlflow_unsynced_runs", text, {(): len(pending_records(workspace))})
    return figures


def _gate(workspace: Workspace) -> _Figures:
    figures = _Figures()
    if not workspace.champion.exists():
        return figures
    manifest = read_manifest(workspace.champion)
    bundle_id = manifest.content_id[:RELEASE_ID_DIGITS]
    info: Values = {(bundle_id, manifest.backbone.precision, manifest.git_commit or "unknown"): 1}
    labels = ("bundle_id", "precision", "commit")
    figures.add("champion_info", "Always 1, for the champion.", info, *labels)
    moves = [move.at for move in champion_history(workspace) if move.to_release == bundle_id]
    published = datetime.fromisoformat(moves[-1] if moves else manifest.created_at).timestamp()
    text = "When it became champion."
    figures.add("champion_published_timestamp_seconds", text, {(): published})
    fusion = manifest.metrics.get("fusion", {})
    values: Values = {
        (name,): value for name in CHAMPION_METRICS if (value := fusion.get(name)) is not None
    }
    figures.add("champion_metric_ratio", "Its test metrics.", values, "metric")
    return figures


def _predict(workspace: Workspace) -> _Figures:
    figures = _Figures()
    summary = _read(workspace.predictions / "summary.json")
    counts: Values = {(name,): summary[name] for name in ("auto", "review") if name in summary}
    figures.add("scored_products", "Products of the last batch prediction.", counts, "decision")
    return figures


_STAGES: dict[str, Callable[[Workspace], _Figures]] = {
    "ingest": _ingest,
    "train": _train,
    "gate": _gate,
    "predict": _predict,
}
STAGES = tuple(_STAGES)


def _read(path: Any) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return content if isinstance(content, dict) else {}


def prepare_metrics(workspace: Workspace, settings: Settings) -> None:
    """Writes all files of a workspace, the limit of its last success included: for when the services start.

    Raises:
        ConfigurationError: PIPELINE_SCHEDULE can't be used.
    """
    # Not above: a stage's image has not all of its packages.
    from product_classifier.runtime.staleness import write_limits

    refresh(workspace)
    write_limits(workspace, settings)


def refresh(workspace: Workspace, stages: Sequence[str] = STAGES) -> None:
    """Writes the files of these stages anew; a fault is a warning, since it is none of the pipeline's."""
    from product_classifier.versioning.push_metrics import prepare_push_metrics

    with suppress(OSError):  # it is there, or the writes below say what is wrong
        (workspace.root / ".state").mkdir(mode=0o700)  # of the embedded run too, which is private
    for stage in stages:
        try:
            prepare_push_metrics(workspace, stage)
            try_write_metrics(workspace.metrics, stage, _STAGES[stage](workspace).registry)
        except Exception as error:  # whatever a damaged file holds, the command's outcome stays
            logger.warning("The metrics of %s were not written: %s", stage, error)
