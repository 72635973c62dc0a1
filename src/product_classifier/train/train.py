"""The train stage: from the ingested catalogue to a candidate bundle, a report and a run record.

Killed at any moment, the next run goes on from the last checkpoint; nothing is visible before it is complete.
"""

import logging
import os
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from product_classifier import __version__
from product_classifier.core.bundle import Manifest, Thresholds
from product_classifier.core.files import (
    canonical_json,
    publish_directory,
    recover_directory,
    sha256_bytes,
    write_json_atomic,
)
from product_classifier.core.locks import only_one
from product_classifier.core.params import TrainParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.features.images import IMAGE_VERSION
from product_classifier.features.text import TEXT_VERSION
from product_classifier.modeling.fusion import fuse, modality_names
from product_classifier.tracking.latest import set_latest
from product_classifier.tracking.record import RUN_NAME, RunRecord
from product_classifier.tracking.upload import upload_or_keep
from product_classifier.train.baseline import score_with_tfidf
from product_classifier.train.branches import (
    Branches,
    export_branches,
    reuse_branches,
    train_branches,
)
from product_classifier.train.candidate import Fitted, write_candidate
from product_classifier.train.dataset import SIDES, Dataset, load_dataset
from product_classifier.train.determinism import make_deterministic
from product_classifier.train.evaluate import (
    confusion_matrix,
    evaluate_probabilities,
    evaluate_scores,
    per_class_report,
)
from product_classifier.train.fusion_branch import BranchScores, fit_fusion
from product_classifier.train.plots import (
    plot_class_scores,
    plot_confusion_matrix,
    plot_reliability,
    plot_training_curves,
)

logger = logging.getLogger(__name__)

MODEL_TYPE = "VGG16+LSTM"
ABLATIONS = ("text_only", "image_only", "tfidf")


@dataclass(frozen=True)
class TrainResult:
    """What a training made."""

    manifest: Manifest
    run_id: str
    uploaded: bool
    seconds: float


def train(workspace: Workspace, settings: Settings, params: TrainParams) -> TrainResult:
    """Trains, measures, exports and publishes a candidate bundle, and records the run.

    Raises:
        DataValidationError: there is no sound catalogue to train on.
        ConfigurationError: the parameters do not fit this machine or the data.
        ArtifactError: a bundle to reuse is damaged, or the new one fails its own check.
    """
    started = time.monotonic()
    with only_one(workspace.models / ".train.lock", "training"):
        recover_directory(workspace.candidate)
        dataset = load_dataset(workspace.raw)
        logger.info(
            "Training on %s rows",
            ", ".join(f"{len(dataset.sides[side])} {side}" for side in SIDES),
        )
        make_deterministic(params.seed)
        # Names and values as saved MLflow queries of the earlier system's users know them.
        tags = {
            "source": "airflow" if os.environ.get("AIRFLOW_RUN_ID") else "command line",
            "version": f"{datetime.now(UTC):%Y%m%d_%H%M%S}",
            "model_type": MODEL_TYPE,
        }
        logged = {"train": params.model_dump(mode="json"), "data": {"sha256": dataset.fingerprint}}
        with RunRecord.start(workspace.runs, name=RUN_NAME, tags=tags, params=logged) as record:
            fitted = fit(workspace, dataset, params)
            manifest = write_candidate(workspace, dataset, fitted)
            _report(workspace, dataset, fitted)
            _record(record, workspace, manifest, fitted, time.monotonic() - started)
        set_latest(workspace, record.run_id, manifest.content_id)
        shutil.rmtree(workspace.cache / "training", ignore_errors=True)
    uploaded = upload_or_keep(record, settings)
    return TrainResult(manifest, record.run_id, uploaded, time.monotonic() - started)


def fit(workspace: Workspace, dataset: Dataset, params: TrainParams) -> Fitted:
    """Does all that is learned and measured; writes only caches and checkpoints."""
    if params.branches == "reuse":
        branches = reuse_branches(workspace, dataset, params)
    else:
        key = {
            "params": params.model_dump(mode="json"),
            "data": dataset.fingerprint,
            "versions": [TEXT_VERSION, IMAGE_VERSION, __version__],
        }
        folder = workspace.cache / "training" / sha256_bytes(canonical_json(key))[:16]
        branches = train_branches(workspace, dataset, params, folder)
    return fuse_and_measure(dataset, branches, params)


def fuse_and_measure(dataset: Dataset, branches: Branches, params: TrainParams) -> Fitted:
    """Fits the fusion on the validation rows and measures everything on the test rows."""
    exported = export_branches(branches, dataset)
    weights, auto_from = fit_fusion(
        exported.scores.rows(dataset.sides["validation"]),
        dataset.prior(),
        params.fusion,
        params.thresholds,
        params.seed,
    )
    thresholds = Thresholds(
        target_precision=params.thresholds.target_precision, auto_from=auto_from
    )
    test = exported.scores.rows(dataset.sides["test"])
    metrics: dict[str, dict[str, Any]] = {}
    answers = {}
    for name, view in zip(("fusion", "text_only", "image_only"), test.views(), strict=True):
        found = fuse(weights, view.text_logits, view.image_logits, view.has_text, view.has_image)
        modalities = modality_names(view.has_text, view.has_image)
        metrics[name] = evaluate_probabilities(found, view.labels, modalities, auto_from)
        answers[name] = found
    probabilities = answers["fusion"]
    metrics["fusion"]["per_class"] = per_class_report(
        probabilities.argmax(axis=1), test.labels, dataset.label_map.codes
    )
    metrics["tfidf"] = evaluate_scores(score_with_tfidf(dataset, params.seed), test.labels)
    metrics["export"] = exported.agreement
    for name in ("fusion", *ABLATIONS):
        logger.info(
            "%s on the test split: accuracy %.4f, macro F1 %.4f",
            name,
            metrics[name]["accuracy"],
            metrics[name]["macro_f1"],
        )
    return Fitted(branches, exported, weights, thresholds, metrics, probabilities)


def _report(workspace: Workspace, dataset: Dataset, fitted: Fitted) -> None:
    """Writes metrics and plots where DVC compares them between versions."""
    test: BranchScores = fitted.exported.scores.rows(dataset.sides["test"])
    predicted = fitted.probabilities.argmax(axis=1)
    names = [str(code) for code in dataset.label_map.codes]
    per_class = fitted.metrics["fusion"]["per_class"]
    with publish_directory(workspace.reports / "train" / "plots") as folder:
        plot_training_curves(fitted.branches.histories, folder / "training_curves.png")
        plot_confusion_matrix(
            confusion_matrix(predicted, test.labels, len(names)),
            names,
            folder / "confusion_matrix.png",
        )
        plot_reliability(
            fitted.probabilities.max(axis=1), predicted == test.labels, folder / "reliability.png"
        )
        plot_class_scores(
            {name: per_class[name]["f1"] for name in names if per_class[name]["support"]},
            {name: per_class[name]["support"] for name in names},
            folder / "class_f1.png",
        )
    write_json_atomic(workspace.reports / "train" / "metrics.json", fitted.metrics)


def _record(
    record: RunRecord, workspace: Workspace, manifest: Manifest, fitted: Fitted, seconds: float
) -> None:
    """Fills the run's record: final metrics, epochs, ablations, plots, bundle."""
    for branch, history in fitted.branches.histories.items():
        for epoch, values in enumerate(history):
            record.log_metrics(
                {f"{branch}_{name}": value for name, value in values.items()}, step=epoch
            )
    record.log_metrics({**_flat(manifest.metrics["fusion"]), **_flat(manifest.metrics["export"])})
    record.log_metrics({"training_seconds": seconds, **_flat(manifest.metrics["timing"])})
    for name in ABLATIONS:
        with record.child(name, tags={"ablation": name}) as child:
            child.log_metrics(_flat(manifest.metrics[name]))
    record.log_artifact(workspace.reports / "train" / "plots", "plots")
    record.log_artifact(workspace.reports / "train" / "metrics.json")
    record.log_artifact(workspace.candidate, "bundle")
    record.add_lineage({"content_id": manifest.content_id, "warnings": manifest.warnings})


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


def candidate_summary(path: Path, manifest: Manifest) -> str:
    """Says in a few words what a candidate is worth."""
    fusion = manifest.metrics["fusion"]
    return (
        f"{path.name} {manifest.content_id[:16]}: accuracy {fusion['accuracy']:.4f}, "
        f"macro F1 {fusion['macro_f1']:.4f}, {fusion['coverage']:.0%} pass without review"
    )
