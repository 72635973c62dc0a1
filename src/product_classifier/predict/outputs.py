"""The published predictions: JSON as the earlier system wrote it, a table, what a person has to look at, counts."""

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_classifier.core.bundle import Manifest
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import publish_directory, write_bytes_atomic, write_json_atomic
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.modeling.predictor import REVIEW
from product_classifier.predict.answers import DECIMALS, Answer

logger = logging.getLogger(__name__)

PREDICTIONS, TABLE = "predictions.json", "predictions.csv"
REVIEW_TABLE, SUMMARY = "review.csv", "summary.json"
SCHEMA = 1
COLUMNS = (
    "row",
    "product_id",
    "image_id",
    "code",
    "name_fr",
    "name_en",
    "confidence",
    "top2_code",
    "top2_confidence",
    "top3_code",
    "top3_confidence",
    "decision",
    "threshold",
    "modalities",
    "bundle_id",
    "line",
    "error",
    "photo_error",
)


@dataclass(frozen=True)
class Origin:
    """What the answers were made of: the bundle, the precision it ran in, the products file (None: there is none)."""

    manifest: Manifest
    precision: str
    dataset: str | None
    dataset_sha256: str | None

    @property
    def bundle_id(self) -> str:
        """Short name of the bundle's content."""
        return self.manifest.content_id[:16]


def summarise(answers: Sequence[Answer], origin: Origin) -> dict[str, Any]:
    """Counts answers; the same inputs and bundle give the same counts."""
    scored = [one for one in answers if one.top]
    codes = Counter(str(one.top[0][0]) for one in scored)
    review = sum(one.decision == REVIEW for one in scored)
    return {
        "schema": SCHEMA,
        "bundle_id": origin.bundle_id,
        "content_id": origin.manifest.content_id,
        "precision": origin.precision,
        "dataset": origin.dataset,
        "dataset_sha256": origin.dataset_sha256,
        "products": len(answers),
        "scored": len(scored),
        "auto": len(scored) - review,
        "review": review,
        "errors": len(answers) - len(scored),
        "photo_errors": sum(one.photo_error is not None for one in answers),
        "modalities": dict(Counter(one.modalities for one in scored)),
        "codes": {str(code): codes[str(code)] for code in origin.manifest.labels},
    }


def publish_predictions(
    workspace: Workspace, settings: Settings, answers: Sequence[Answer], origin: Origin
) -> dict[str, Any]:
    """Puts the predictions in place, all of them at once, and gives their summary.

    Args:
        workspace: Where; `data/predictions` is replaced.
        settings: PREDICTIONS_PATH, where a copy of `predictions.json` is left.
        answers: One for each row of the file, in its order.
        origin: What they were made of.

    Raises:
        ConfigurationError: the copy can't be written; the predictions are in place.
    """
    summary = summarise(answers, origin)
    codes = {str(one.row): one.top[0][0] for one in answers if one.top}
    doubtful = sorted(
        (one for one in answers if one.decision == REVIEW),
        key=lambda one: (one.top[0][1], one.position),
    )
    predictions = (json.dumps(codes, indent=2) + "\n").encode()
    with publish_directory(workspace.predictions) as folder:
        write_bytes_atomic(folder / PREDICTIONS, predictions)
        write_bytes_atomic(folder / TABLE, _table(answers, origin))
        write_bytes_atomic(folder / REVIEW_TABLE, _table(doubtful, origin))
        write_json_atomic(folder / SUMMARY, summary)
    if (copy := copy_target(workspace, settings)) is not None:
        _leave_copy(copy, predictions)
        logger.info("PREDICTIONS_PATH: left a copy of %s at %s.", PREDICTIONS, copy)
    return summary


def _leave_copy(copy: Path, predictions: bytes) -> None:
    try:
        write_bytes_atomic(copy, predictions)
    except OSError as error:
        raise ConfigurationError(
            f"PREDICTIONS_PATH: expected a file that can be written. Received: {copy} ({error}). "
            "The predictions are in data/predictions."
        ) from error


def copy_target(workspace: Workspace, settings: Settings) -> Path | None:
    """Says where a copy of `predictions.json` is to be left, or None where none is wanted or it would do harm."""
    if settings.predictions_path is None:
        return None
    target = workspace.root / settings.predictions_path
    if target.is_dir() or not target.suffix:
        target = target / PREDICTIONS
    resolved = target.resolve()
    if resolved == (workspace.predictions / PREDICTIONS).resolve():
        return None  # it is there already
    own = (workspace.predictions, workspace.raw, workspace.candidate, workspace.releases)
    if any(resolved.is_relative_to(folder.resolve()) for folder in own):
        logger.warning(
            "PREDICTIONS_PATH %s lies in a folder that the pipeline versions: no copy is left there. "
            "The predictions are in data/predictions.",
            settings.predictions_path,
        )
        return None
    return target


def _table(answers: Iterable[Answer], origin: Origin) -> bytes:
    """Writes answers as CSV after RFC 4180, UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(one, origin) for one in answers)
    return text.getvalue().encode()


def _cells(one: Answer, origin: Origin) -> list[object]:
    ranked: list[object] = []
    for rank in range(3):
        found = one.top[rank] if rank < len(one.top) else None
        ranked += [found[0], _decimal(found[1])] if found else [None, None]
    names: list[object] = [None, None]
    if one.top:
        name = origin.manifest.names[str(one.top[0][0])]
        names = [name.fr, name.en]
    return [
        one.row,
        one.product_id,
        one.image_id,
        ranked[0],
        *names,
        *ranked[1:],
        one.decision,
        _decimal(one.threshold),
        one.modalities,
        origin.bundle_id if one.top else None,
        one.line,
        one.error,
        one.photo_error,
    ]


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.{DECIMALS}f}"
