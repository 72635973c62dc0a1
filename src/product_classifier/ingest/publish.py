"""Publishes a catalogue as `data/raw`: all of it, and only if all of it is valid."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_classifier.core.errors import DataValidationError
from product_classifier.core.files import publish_directory, sha256_file, write_json_atomic
from product_classifier.core.params import IngestParams
from product_classifier.core.product_types import NAMES_FILE
from product_classifier.core.workspace import LABELS_FILE, TEST_FILE, TRAIN_FILE, Workspace
from product_classifier.ingest.faults import Findings
from product_classifier.ingest.layout import Catalogue
from product_classifier.ingest.photo_shards import PhotoFacts, check_bad_photos, publish_photos
from product_classifier.ingest.reference import reference_statistics
from product_classifier.ingest.report import MARKDOWN_FILE, build_report, write_report
from product_classifier.ingest.sources import Source
from product_classifier.ingest.split import split_products
from product_classifier.ingest.validation import Tables, check_expected_counts, read_tables

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
SPLITS_FILE = "splits.json"
REFERENCE_FILE = "reference_statistics.json"
PHOTOS_FOLDER = "photos"
SCHEMA = 1


@dataclass(frozen=True)
class IngestResult:
    """What an import published."""

    labelled: int
    unlabelled: int
    photos: int
    warnings: int


def publish_catalogue(
    catalogue: Catalogue,
    source: Source,
    workspace: Workspace,
    params: IngestParams,
    expected_rows: tuple[int, int] | None,
) -> IngestResult:
    """Validates a catalogue, splits it and puts it in the place of `data/raw`.

    Args:
        catalogue: The parts, already on this machine.
        source: Named in report and manifest.
        workspace: Where `data/raw` and the reports are.
        params: Split and validation parameters.
        expected_rows: Labelled and unlabelled rows that there must be, if that is known.

    Raises:
        DataValidationError: the catalogue breaks a rule; `data/raw` is as before.
    """
    findings = Findings(params.validation.max_offenders_shown)
    with publish_directory(workspace.raw) as staging:
        tables = read_tables(catalogue, params.validation, findings)
        if expected_rows is not None:
            check_expected_counts(tables, expected_rows, findings)
        both = (tables.labelled, tables.unlabelled)
        facts = publish_photos(
            both, catalogue.photos, staging / PHOTOS_FOLDER, params.photo_shards, findings
        )
        check_bad_photos(sum(len(table.products) for table in both), params.validation, findings)
        report = build_report(source.name, catalogue, tables, len(facts), findings)
        write_report(workspace.reports / "ingest", report)
        _stop_on_faults(findings, workspace)
        _write_tables(catalogue, staging)
        _write_split_and_reference(tables, facts, params, staging)
        write_report(staging, report)
        _write_manifest(staging, report)
    return IngestResult(
        labelled=len(tables.labelled.products),
        unlabelled=len(tables.unlabelled.products),
        photos=len(facts),
        warnings=sum(finding.count for finding in findings.warnings),
    )


def _stop_on_faults(findings: Findings, workspace: Workspace) -> None:
    for finding in findings.warnings:
        logger.warning(
            "%s %d found. First: %s",
            finding.message,
            finding.count,
            "; ".join(map(str, finding.offenders)),
        )
    if findings.faults:
        report = workspace.reports / "ingest" / MARKDOWN_FILE
        lines = "\n".join(findings.describe())
        raise DataValidationError(
            f"The catalogue is refused; data/raw is as before. Report: {report}\n{lines}"
        )


def _write_tables(catalogue: Catalogue, staging: Path) -> None:
    parts = (
        (catalogue.train, TRAIN_FILE),
        (catalogue.labels, LABELS_FILE),
        (catalogue.test, TEST_FILE),
        (catalogue.names, NAMES_FILE),
    )
    for path, name in parts:
        if path is not None:
            shutil.copyfile(path, staging / name)


def _write_split_and_reference(
    tables: Tables, facts: dict[str, PhotoFacts], params: IngestParams, staging: Path
) -> None:
    products = tables.labelled.products
    hashes = {name: fact.sha256 for name, fact in facts.items()}
    write_json_atomic(
        staging / SPLITS_FILE, split_products(products, tables.codes, hashes, params.split)
    )
    brightness = [
        facts[product.photo_name].brightness for product in products if product.photo_name in facts
    ]
    codes = [tables.codes[product.row] for product in products]
    write_json_atomic(staging / REFERENCE_FILE, reference_statistics(products, codes, brightness))


def _write_manifest(staging: Path, report: dict[str, Any]) -> None:
    """Lists every published file with size and hash; no time: equal data, equal bytes."""
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    write_json_atomic(
        staging / MANIFEST_FILE,
        {
            "schema": SCHEMA,
            "source": report["source"],
            "labelled": report["labelled"],
            "unlabelled": report["unlabelled"],
            "classes": len(report["classes"]),
            "photos": report["good_photos"],
            "files": {
                path.relative_to(staging).as_posix(): {
                    "size": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
                for path in files
            },
        },
    )
