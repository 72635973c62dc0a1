"""Writing the candidate bundle, and proving it before anybody can see it."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from product_classifier import __version__
from product_classifier.core import bundle as parts
from product_classifier.core.bundle import (
    Backbone as BackboneEntry,
)
from product_classifier.core.bundle import (
    Manifest,
    Preprocessing,
    Thresholds,
    content_id,
    describe_files,
)
from product_classifier.core.errors import ArtifactError
from product_classifier.core.files import (
    link_or_copy,
    publish_directory,
    write_json_atomic,
    write_text_atomic,
)
from product_classifier.core.product_types import names_for
from product_classifier.core.workspace import Workspace
from product_classifier.features.images import IMAGE_VERSION
from product_classifier.features.text import TEXT_VERSION, unknown_token_rate
from product_classifier.modeling.drift import build_reference
from product_classifier.modeling.export import hash_weights, save_network
from product_classifier.modeling.fusion import FloatArray, FusionWeights
from product_classifier.modeling.fusion_network import (
    build_concatenated_model,
    without_optimizer,
)
from product_classifier.modeling.observation_table import format_table
from product_classifier.modeling.predictor import Predictor, ProductInput
from product_classifier.train.branches import Branches, ExportedBranches
from product_classifier.train.dataset import SIDES, Dataset
from product_classifier.train.model_card import write_model_card
from product_classifier.train.reference import observe_test_products
from product_classifier.versioning.lineage import read_git

logger = logging.getLogger(__name__)

SELF_CHECK_PRODUCTS = 64
SELF_CHECK_TOLERANCE = 1e-3  # confidence; the same network and precision, other batch sizes


@dataclass(frozen=True)
class Fitted:
    """Everything that a training found out."""

    branches: Branches
    exported: ExportedBranches
    weights: FusionWeights
    thresholds: Thresholds
    metrics: dict[str, dict[str, Any]]
    probabilities: FloatArray  # of the test rows, (n_test, K)


def build_manifest(dataset: Dataset, fitted: Fitted, workspace: Workspace) -> Manifest:
    """Puts the manifest together, without its file list and its drift reference."""
    branches = fitted.branches
    codes = list(dataset.label_map.codes)
    preprocessing = Preprocessing(
        max_tokens=branches.max_tokens,
        image_size=branches.image.size,
        crop=branches.image.crop,
        text_version=TEXT_VERSION,
        image_version=IMAGE_VERSION,
    )
    backbone = BackboneEntry(
        weights=branches.backbone.resolved.kind,
        weights_sha256=branches.backbone.weights_sha256,
        precision=branches.backbone.precision,
        pooled_blocks=branches.image.pooled_blocks,
        feature_size=branches.features.shape[1],
        fine_tuned_blocks=branches.backbone.fine_tuned_blocks,
        precision_report=branches.backbone.report,
    )
    warning = branches.backbone.resolved.warning
    validation = [dataset.texts[row] for row in dataset.sides["validation"]]
    identity = content_id(
        {
            "text": hash_weights(branches.text_model.get_weights()),
            "image_head": hash_weights(branches.head.get_weights()),
            "image_base": branches.backbone.weights_sha256,
        },
        {
            "tokenizer": branches.tokenizer.to_str(),
            "mapper": dataset.label_map.to_mapper(),
            "fusion": fitted.weights.to_json(),
            "thresholds": fitted.thresholds.model_dump(),
            "preprocessing": preprocessing.model_dump(),
            "precision": branches.backbone.precision,
        },
    )
    return Manifest(
        schema_version=parts.SCHEMA_VERSION,
        content_id=identity,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        package_version=__version__,
        labels=codes,
        names=names_for(codes, workspace.raw),
        preprocessing=preprocessing,
        backbone=backbone,
        thresholds=fitted.thresholds,
        metrics=fitted.metrics,
        warnings=[warning] if warning else [],
        reference={
            **dataset.reference,
            "unknown_token_rate": unknown_token_rate(branches.tokenizer, validation),
        },
        git_commit=read_git(workspace)[0] or "",
        files={},
    )


def write_candidate(workspace: Workspace, dataset: Dataset, fitted: Fitted) -> Manifest:
    """Writes the bundle, checks it against what was measured, and puts it in place of the former candidate.

    Raises:
        ArtifactError: the written bundle answers otherwise than the training measured.
    """
    manifest = build_manifest(dataset, fitted, workspace)
    observed = observe_test_products(
        dataset, fitted.branches.tokens, fitted.probabilities, manifest.preprocessing
    )
    manifest = manifest.model_copy(update={"drift": build_reference(observed, manifest.labels)})
    with publish_directory(workspace.candidate) as folder:
        _write_parts(folder, dataset, fitted)
        write_text_atomic(folder / parts.REFERENCE_OBSERVATIONS, format_table(observed))
        counts = {side: len(dataset.sides[side]) for side in SIDES}
        write_text_atomic(folder / parts.MODEL_CARD, write_model_card(manifest, counts))
        files = describe_files(folder)
        _save_manifest(folder, manifest.model_copy(update={"files": files}))
        timing = check_written_bundle(folder, dataset, fitted)
        manifest = manifest.model_copy(
            update={"files": files, "metrics": {**manifest.metrics, "timing": timing}}
        )
        _save_manifest(folder, manifest)
    logger.info("Candidate %s is written", manifest.content_id[:16])
    return manifest


def _save_manifest(folder: Path, manifest: Manifest) -> None:
    write_json_atomic(folder / parts.MANIFEST, manifest.model_dump(mode="json"))


def _write_parts(folder: Path, dataset: Dataset, fitted: Fitted) -> None:
    branches = fitted.branches
    write_text_atomic(folder / parts.TOKENIZER, branches.tokenizer.to_str(pretty=True))
    write_json_atomic(folder / parts.MAPPER, dataset.label_map.to_mapper())
    write_json_atomic(folder / parts.FUSION_WEIGHTS, fitted.weights.to_json())
    for model, name in (
        (branches.text_model, parts.TEXT_MODEL),
        (branches.head, parts.IMAGE_MODEL),
    ):
        without_optimizer(model).save(folder / name)
    build_concatenated_model(branches.text_model, branches.head, fitted.weights).save(
        folder / parts.FUSED_MODEL
    )
    save_network(fitted.exported.text, folder / parts.TEXT_NETWORK)
    save_network(fitted.exported.head, folder / parts.IMAGE_HEAD_NETWORK)
    base = branches.backbone.network
    target = folder / parts.IMAGE_BASE_NETWORK
    link_or_copy(base, target)
    link_or_copy(base.with_suffix(".bin"), target.with_suffix(".bin"))
    link_or_copy(branches.backbone.weights, folder / parts.IMAGE_BASE_WEIGHTS)


def check_written_bundle(folder: Path, dataset: Dataset, fitted: Fitted) -> dict[str, float]:
    """Scores some test products from their raw rows and photos with the written bundle.

    Returns:
        Timing of that: seconds_per_product, products.

    Raises:
        ArtifactError: an answer is not the measured one.
    """
    rows = dataset.sides["test"][:SELF_CHECK_PRODUCTS]
    inputs = [
        ProductInput(
            dataset.products[row].title,
            dataset.products[row].description,
            dataset.photos.read(dataset.products[row].photo_name),
        )
        for row in rows
    ]
    predictor = Predictor.load(folder)
    started = time.perf_counter()
    decoded = [predictor.decode(product) for product in inputs]
    found = predictor.score(decoded)
    seconds = time.perf_counter() - started
    difference = float(np.max(np.abs(found - fitted.probabilities[: len(rows)]), initial=0.0))
    if difference > SELF_CHECK_TOLERANCE:
        raise ArtifactError(
            "The written bundle does not answer as the training measured: confidences differ by "
            f"{difference:.4f}. At most {SELF_CHECK_TOLERANCE} is allowed."
        )
    logger.info("The written bundle answers as measured (greatest difference %.1e)", difference)
    return {"seconds_per_product": seconds / max(1, len(rows)), "products": float(len(rows))}
