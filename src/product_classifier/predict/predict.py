"""The predict stage: scores a file of products with one bundle, from start to end the same one.

Killed at any moment, the next run goes on after the last finished chunk; a run in shards, put together, gives the
same bytes as a run at once.
"""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from product_classifier.core.bundle import Manifest, read_manifest
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import write_bytes_atomic
from product_classifier.core.locks import only_one
from product_classifier.core.params import PredictParams
from product_classifier.core.progress import report_progress
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, Workspace
from product_classifier.modeling.networks import usable_precision
from product_classifier.modeling.predictor import Predictor
from product_classifier.predict.answers import Answer
from product_classifier.predict.checkpoints import ChunkStore, Shard, encode_answers, read_parts
from product_classifier.predict.job import Job, Request, find_bundle, open_job
from product_classifier.predict.outputs import Origin, publish_predictions
from product_classifier.predict.rows import ScoringRow
from product_classifier.predict.scoring import open_photos, score_chunks

logger = logging.getLogger(__name__)

MAX_SHOWN_ERRORS = 5


def predict(
    workspace: Workspace, settings: Settings, params: PredictParams, request: Request
) -> dict[str, Any]:
    """Scores all products and publishes the predictions.

    Returns:
        The counts of `summary.json`.

    Raises:
        ConfigurationError: there is no such bundle, file or folder.
        DataValidationError: the products file can't be read or lacks a column.
        ArtifactError: the bundle is damaged.
    """
    with only_one(workspace.root / "data" / ".predict.lock", "batch prediction"):
        job = open_job(workspace, settings, request)
        if job is None:
            return _publish_nothing(workspace, settings, request)
        answers, _ = _score(job, params, Shard())
        summary = publish_predictions(workspace, settings, answers, job.origin)
        # Those of runs that were killed and never taken up again go too.
        shutil.rmtree(workspace.cache / "predict", ignore_errors=True)
    _report_errors(answers)
    return summary


def predict_shard(
    workspace: Workspace,
    settings: Settings,
    params: PredictParams,
    request: Request,
    shard: Shard,
) -> Path | None:
    """Scores one shard and leaves a part for `merge_parts`; None where there is nothing to score.

    Raises:
        As `predict`.
    """
    lock = workspace.root / "data" / f".predict-{shard.number}-of-{shard.of}.lock"
    with only_one(lock, f"batch prediction of shard {shard.number}/{shard.of}"):
        job = open_job(workspace, settings, request)
        if job is None:
            return None
        answers, chunks = _score(job, params, shard)
        part = job.parts / shard.name
        write_bytes_atomic(part, encode_answers(answers))
        chunks.remove()
    _report_errors(answers)
    return part


def merge_parts(
    workspace: Workspace, settings: Settings, request: Request, shards: int
) -> dict[str, Any]:
    """Publishes the parts of a sharded run; the result is that of `predict`, byte for byte.

    Raises:
        ArtifactError: parts are missing or damaged.
        ConfigurationError, DataValidationError: as `predict`.
    """
    if shards < 1:
        raise ConfigurationError(
            f"--merge: expected the number of shards, 1 or more. Received: {shards}."
        )
    with only_one(workspace.root / "data" / ".predict.lock", "batch prediction"):
        job = open_job(workspace, settings, request)
        if job is None:
            return _publish_nothing(workspace, settings, request)
        answers = read_parts(job.parts, shards, job.rows)
        summary = publish_predictions(workspace, settings, answers, job.origin)
        # These parts stay, so that the merge can be repeated; those of earlier products or bundles go.
        for folder in job.parts.parent.iterdir():
            if folder != job.parts:
                shutil.rmtree(folder, ignore_errors=True)
    _report_errors(answers)
    return summary


def _score(job: Job, params: PredictParams, shard: Shard) -> tuple[list[Answer], ChunkStore]:
    """Scores what no earlier run has, and gives the answers of all rows of the shard."""
    size = params.chunk_products
    rows = shard.rows(job.rows)
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    store = job.chunks_of(shard, size)
    done = {index: store.load(index, chunk) for index, chunk in enumerate(chunks)}
    found = {index: answers for index, answers in done.items() if answers is not None}
    missing = [index for index in done if index not in found]
    if found and missing:
        logger.info("Going on after %d of %d finished chunks", len(found), len(chunks))
    if missing:
        predictor = Predictor.load(job.bundle)
        _check_same(job.origin.manifest, predictor)
        found |= _score_missing(job, predictor, store, {index: chunks[index] for index in missing})
    return [one for index in range(len(chunks)) for one in found[index]], store


def _score_missing(
    job: Job,
    predictor: Predictor,
    store: ChunkStore,
    chunks: dict[int, list[ScoringRow]],
) -> dict[int, list[Answer]]:
    started = time.monotonic()
    total = sum(len(chunk) for chunk in chunks.values())
    found: dict[int, list[Answer]] = {}
    photos = open_photos(job.inputs.photos)
    try:
        with report_progress("Scoring products", total, "products") as progress:
            scored = score_chunks(predictor, photos, list(chunks.values()))
            for index, answers in zip(chunks, scored, strict=True):
                store.save(index, answers)
                found[index] = answers
                progress.advance(len(answers))
    finally:
        if photos is not None:
            photos.close()
    seconds = time.monotonic() - started
    logger.info(
        "Scored %d products in %.1f s: %.1f products per second",
        total,
        seconds,
        total / max(seconds, 1e-9),
    )
    return found


def _check_same(manifest: Manifest, predictor: Predictor) -> None:
    loaded = predictor.bundle.manifest.content_id
    if loaded != manifest.content_id:
        raise ConfigurationError(
            f"The bundle changed while it was opened. Expected {manifest.content_id[:16]}. "
            f"Received: {loaded[:16]}. Run again."
        )


def _publish_nothing(workspace: Workspace, settings: Settings, request: Request) -> dict[str, Any]:
    """Publishes valid predictions of no product, so that what comes after goes on."""
    manifest = read_manifest(find_bundle(workspace, request.bundle))
    logger.warning(
        "The imported catalogue has no unlabelled products (no %s in data/raw): there is nothing to score. "
        "Name a file with --dataset or DATASET_PATH.",
        TEST_FILE,
    )
    origin = Origin(manifest, usable_precision(manifest.backbone.precision), None, None)
    return publish_predictions(workspace, settings, [], origin)


def _report_errors(answers: Sequence[Answer]) -> None:
    bad = [one for one in answers if one.error is not None]
    for one in bad[:MAX_SHOWN_ERRORS]:
        logger.warning("Line %d has no prediction. %s", one.line, one.error)
    if bad:
        logger.warning("%d of %d products have no prediction", len(bad), len(answers))
