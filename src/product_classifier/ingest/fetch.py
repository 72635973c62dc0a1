"""Brings a resolved source onto the disk, as a catalogue."""

import logging
import zipfile
from dataclasses import replace
from pathlib import Path

from product_classifier.core.errors import SourceError
from product_classifier.core.params import IngestParams
from product_classifier.core.product_types import NAMES_FILE
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.ingest.download import Downloader, DownloadPolicy
from product_classifier.ingest.download_store import DownloadStore
from product_classifier.ingest.layout import Catalogue, find_in_folder, find_in_zip
from product_classifier.ingest.remote import ARCHIVE_NAME, remote_files, remote_names, store_folder
from product_classifier.ingest.sample import write_names, write_sample
from product_classifier.ingest.sources import Source, UnreachableError

logger = logging.getLogger(__name__)


def fetch_catalogue(
    source: Source, workspace: Workspace, settings: Settings, params: IngestParams, scratch: Path
) -> Catalogue:
    """Generates, finds or downloads the catalogue of a source.

    Args:
        source: A resolved source.
        workspace: Its `data/downloads` keeps what is fetched.
        settings: Patience of downloads; endpoint and keys of S3.
        params: What the sample is like.
        scratch: An empty folder for what is generated or unpacked.

    Raises:
        SourceError: the source can't be reached or does not deliver.
        DataValidationError: it holds no catalogue in the Rakuten layout, or a refused archive.
    """
    if source.kind == "sample":
        folder = scratch / "sample"
        folder.mkdir()
        write_sample(folder, params.sample)
        return find_in_folder(folder)
    if source.kind == "folder":
        return find_in_folder(Path(source.location))
    if source.kind == "zip":
        return find_in_zip(Path(source.location), scratch / "unpacked")
    return _fetch_remote(source, workspace, settings, scratch)


def _fetch_remote(
    source: Source, workspace: Workspace, settings: Settings, scratch: Path
) -> Catalogue:
    store = DownloadStore(store_folder(source, workspace.downloads))
    try:
        _download_all(source, settings, store)
    except UnreachableError as error:
        # Raised only by S3, where the files' addresses have to be asked for; HTTP decides per file.
        if not all(store.verified(name) for name, required in remote_names(source) if required):
            raise
        logger.warning("%s Using the intact earlier download.", error)
    if source.is_archive:
        return find_in_zip(store.path(ARCHIVE_NAME), scratch / "unpacked")
    catalogue = find_in_folder(store.folder)
    if source.kind == "rakuten" and catalogue.names is None:
        write_names(scratch)
        catalogue = replace(catalogue, names=scratch / NAMES_FILE)
    return catalogue


def _download_all(source: Source, settings: Settings, store: DownloadStore) -> None:
    downloader = Downloader(store, DownloadPolicy.from_settings(settings))
    wanted = remote_files(source, settings)
    for file in wanted:
        path = downloader.fetch(file.name, file.url)
        if path is None and file.required:
            raise SourceError(f"{source.shown}: there is no {file.name}.")
        if path is not None and path.suffix == ".zip" and not zipfile.is_zipfile(path):
            size = path.stat().st_size
            store.forget(file.name)
            raise SourceError(
                f"{source.shown}: {file.name} is no complete zip ({size} bytes). "
                "Run again to fetch it anew."
            )
    for name in {name for name, _ in remote_names(source)} - {file.name for file in wanted}:
        store.forget(name)
