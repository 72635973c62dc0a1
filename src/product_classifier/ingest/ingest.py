"""The ingest stage: fetch, validate, split and publish a catalogue.

Nothing is published before all of it is valid; yesterday's `data/raw` stays until then. Killed at
any moment, the next run starts clean and reuses finished downloads.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from product_classifier.core.files import recover_directory, symlink_atomic
from product_classifier.core.locks import only_one
from product_classifier.core.params import IngestParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.ingest.fetch import fetch_catalogue
from product_classifier.ingest.probe import write_probe
from product_classifier.ingest.publish import IngestResult, publish_catalogue
from product_classifier.ingest.sources import UnreachableError, resolve_source

logger = logging.getLogger(__name__)

# Rows of the challenge's files. Source: the challenge's data page; also counted in the published
# files.
RAKUTEN_ROWS = (84_916, 13_812)


@contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    """Gives an empty folder for what is unpacked or generated; clears a killed run's rest."""
    folder = workspace.downloads / ".scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ingest(
    workspace: Workspace,
    settings: Settings,
    params: IngestParams,
    *,
    source: str | None = None,
    rakuten_rows: tuple[int, int] = RAKUTEN_ROWS,
) -> IngestResult:
    """Imports a catalogue into `data/raw`.

    Args:
        workspace: The checkout to work in.
        settings: Data source, addresses and credentials.
        params: Sample, split and validation parameters.
        source: Taken instead of `settings.data_source`.
        rakuten_rows: Labelled and unlabelled rows that the source `rakuten` must have.

    Raises:
        ConfigurationError: the source is none of the allowed kinds.
        SourceError: the source can't be reached or keeps breaking off.
        DataValidationError: the catalogue breaks a rule; `data/raw` is as before.
    """
    started = time.monotonic()
    resolved = resolve_source(source or settings.data_source, settings, workspace.root)
    logger.info("Importing from %s", resolved.shown)
    with (
        only_one(workspace.root / "data" / ".ingest.lock", "ingest"),
        _scratch(workspace) as scratch,
    ):
        recover_directory(workspace.raw)
        # Before anything is read: if the source changes meanwhile, the next check sees a change.
        try:
            write_probe(workspace, settings, params, source=resolved)
        except UnreachableError as error:
            logger.warning("%s An intact earlier download will do.", error)
        catalogue = fetch_catalogue(resolved, workspace, settings, params, scratch)
        try:
            expected = rakuten_rows if resolved.kind == "rakuten" else None
            result = publish_catalogue(catalogue, resolved, workspace, params, expected)
        finally:
            catalogue.photos.close()
        _link_data_path(workspace, settings)
    seconds = time.monotonic() - started
    counts = (result.labelled, result.unlabelled, result.photos)
    logger.info(
        "Published %d labelled and %d unlabelled products with %d photos in %.1f s",
        *counts,
        seconds,
    )
    return result


def _link_data_path(workspace: Workspace, settings: Settings) -> None:
    """Makes `DATA_PATH`, where set, a folder of links to the parts of `data/raw`; never replaces data.

    Users of the earlier system expect the catalogue there, and leave files of their own beside it (their
    PREDICTIONS_PATH), which one link to the versioned folder could not take.
    """
    if settings.data_path is None:
        return
    folder = workspace.root / settings.data_path
    if folder.is_file() or workspace.raw.resolve() in (folder.resolve(), *folder.resolve().parents):
        if folder.resolve() != workspace.raw.resolve():
            logger.warning(
                "DATA_PATH %s is left alone: it must be a folder beside data/raw.", folder
            )
        return
    for part in sorted(workspace.raw.iterdir()):
        link, target = folder / part.name, os.path.relpath(part, folder)
        if link.is_symlink() and os.readlink(link) == target:
            continue
        if link.exists() and not link.is_symlink():
            logger.warning("DATA_PATH: %s is left alone. The import is in data/raw.", link)
            continue
        symlink_atomic(target, link)
