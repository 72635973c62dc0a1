"""Says cheaply what the data source is now, so that an unchanged one is not imported again.

The probe file is a dependency of the DVC stage `ingest`. It holds no secret.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from product_classifier.core.files import canonical_json, read_json, sha256_bytes, write_json_atomic
from product_classifier.core.params import IngestParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.ingest.layout import (
    OPTIONAL_TABLES,
    REQUIRED_TABLES,
    catalogue_root,
    photo_root,
)
from product_classifier.ingest.remote import describe_remote
from product_classifier.ingest.sample import GENERATOR_VERSION
from product_classifier.ingest.sources import Source, UnreachableError, resolve_source

logger = logging.getLogger(__name__)

PROBE_FILE = "ingest.json"
SCHEMA = 1


def write_probe(
    workspace: Workspace, settings: Settings, params: IngestParams, *, source: Source | None = None
) -> Path:
    """Writes what the source is now; the file is touched only if that changed.

    Args:
        workspace: Where the probe is kept.
        settings: Data source, addresses and credentials.
        params: What the sample is like.
        source: Taken instead of the one in the settings.

    Returns:
        The probe file. Where a remote source does not answer, it stays as it is.

    Raises:
        ConfigurationError: the source is none of the allowed kinds.
        UnreachableError: the source does not answer, and no earlier run knows it.
        DataValidationError: the folder holds no catalogue.
    """
    source = source or resolve_source(settings.data_source, settings, workspace.root)
    path = workspace.probes / PROBE_FILE
    known = _read(path)
    try:
        fingerprint = _fingerprint(source, settings, params)
    except UnreachableError as error:
        if known.get("source") != source.shown:
            raise
        logger.warning("%s Taking its last known state.", error)
        return path
    probe = {"schema": SCHEMA, "source": source.shown, "fingerprint": fingerprint}
    if probe != known:
        write_json_atomic(path, probe)
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _fingerprint(source: Source, settings: Settings, params: IngestParams) -> Any:
    if source.kind == "sample":
        return {"generator": GENERATOR_VERSION, **params.sample.model_dump()}
    if source.kind == "folder":
        return _hash_states(_files_of(catalogue_root(Path(source.location))))
    if source.kind == "zip":
        return _hash_states(iter([Path(source.location)]))
    # Addresses of signed requests change each time: the fingerprint holds only what the server
    # says of the files.
    return sha256_bytes(canonical_json(describe_remote(source, settings)))


def _files_of(root: Path) -> Iterator[Path]:
    for name in (*REQUIRED_TABLES, *OPTIONAL_TABLES):
        if (root / name).is_file():
            yield root / name
    photos = photo_root(root)
    if photos.is_file():
        yield photos
    else:
        yield from sorted(path for path in photos.rglob("*") if path.is_file())


def _hash_states(paths: Iterator[Path]) -> str:
    """Hashes name, size and time of change of each file: no content is read."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
