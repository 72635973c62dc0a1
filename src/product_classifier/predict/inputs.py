"""Which products and photos are to be scored, and what names their content."""

import hashlib
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core.errors import ConfigurationError, DataValidationError
from product_classifier.core.files import sha256_file
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, TRAIN_FILE, Workspace
from product_classifier.features.photos import PHOTO_SUFFIXES, SHARD_GLOB

logger = logging.getLogger(__name__)

PHOTOS_FOLDER = "photos"
# Where a `.env` of the earlier system points: files that `ingest` now keeps in data/raw.
_EARLIER_FOLDERS = frozenset({"preprocessed", "raw"})
_EARLIER_PHOTOS = frozenset({"images", "image_test", "image_train", "images.zip"})


@dataclass(frozen=True)
class Inputs:
    """The products file and the photos (None: there are none), and whether they are the ingested ones."""

    dataset: Path
    photos: Path | None
    dataset_is_ingested: bool
    photos_are_ingested: bool


@dataclass(frozen=True)
class Fingerprint:
    """What names the inputs' content; `photos` is None where there are none."""

    dataset_sha256: str
    photos: str | None


def resolve_inputs(
    workspace: Workspace,
    settings: Settings,
    dataset: Path | None = None,
    images: Path | None = None,
) -> Inputs | None:
    """Finds what is to be scored.

    Args:
        workspace: Where; paths in the settings are relative to it.
        settings: DATASET_PATH and IMAGES_PATH.
        dataset: Wins over DATASET_PATH; relative to the current folder.
        images: Wins over IMAGES_PATH; likewise.

    Returns:
        The inputs, or None where nobody named any and the ingested catalogue has no unlabelled products.

    Raises:
        ConfigurationError: a path leads nowhere.
    """
    table = _find_dataset(workspace, settings, dataset)
    if table is None:
        return None
    photos = _find_photos(workspace, settings, images)
    if photos is None:
        logger.warning(
            "There are no photos at %s: products are scored by text alone.",
            workspace.raw / PHOTOS_FOLDER,
        )
    raw = workspace.raw.resolve()
    return Inputs(
        table,
        photos,
        table.resolve().is_relative_to(raw),
        photos is not None and photos.resolve().is_relative_to(raw),
    )


def _find_dataset(workspace: Workspace, settings: Settings, option: Path | None) -> Path | None:
    if option is not None:
        return _existing("--dataset", "a CSV file of products", _table_in(option))
    ingested = workspace.raw / TEST_FILE
    if settings.dataset_path is None:
        return ingested if ingested.is_file() else None
    named = workspace.root / settings.dataset_path
    wanted = _table_in(named)
    if wanted.exists() or not _is_of_earlier_layout(named):
        return _existing("DATASET_PATH", "a CSV file of products", wanted)
    stand_in = workspace.raw / (named.name if named.name == TRAIN_FILE else TEST_FILE)
    _say_fallback("DATASET_PATH", wanted, stand_in)
    return stand_in if stand_in.is_file() else None


def _is_of_earlier_layout(path: Path) -> bool:
    if path.name in _EARLIER_FOLDERS:
        return True
    return path.name in (TEST_FILE, TRAIN_FILE) and not path.exists()


def _table_in(path: Path) -> Path:
    """Takes a folder for the unlabelled products in it."""
    return path / TEST_FILE if path.is_dir() else path


def _find_photos(workspace: Workspace, settings: Settings, option: Path | None) -> Path | None:
    if option is not None:
        return _existing("--images", "a folder or zip of photos", option)
    ingested = workspace.raw / PHOTOS_FOLDER
    if settings.images_path is not None:
        wanted = workspace.root / settings.images_path
        if wanted.exists() or wanted.name not in _EARLIER_PHOTOS:
            return _existing("IMAGES_PATH", "a folder or zip of photos", wanted)
        _say_fallback("IMAGES_PATH", wanted, ingested)
    return ingested if ingested.exists() else None


def _say_fallback(setting: str, wanted: Path, stand_in: Path) -> None:
    logger.warning(
        "%s: there is no %s. Its name is one that ingest keeps in data/raw: taking %s instead.",
        setting,
        wanted,
        stand_in,
    )


def _existing(setting: str, what: str, path: Path) -> Path:
    if not path.exists():
        raise ConfigurationError(
            f"{setting}: expected {what}. Received: {path}, and there is no such path."
        )
    return path


def fingerprint_inputs(inputs: Inputs) -> Fingerprint:
    """Names the content of the inputs without reading a photo.

    Raises:
        DataValidationError: the products file or an archive can't be read.
    """
    try:
        return Fingerprint(
            sha256_file(inputs.dataset),
            fingerprint_photos(inputs.photos) if inputs.photos else None,
        )
    except (OSError, zipfile.BadZipFile) as error:
        raise DataValidationError(f"The products or photos can't be read: {error}") from error


def fingerprint_photos(root: Path) -> str:
    """Names the photos below `root`.

    Of an archive, names, sizes and checksums of its table of contents count, wherever it lies; of loose files their
    names, sizes and times of change.
    """
    digest = hashlib.sha256()
    archives = [root] if root.is_file() else sorted(root.rglob(SHARD_GLOB))
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                digest.update(f"{member.filename}\0{member.file_size}\0{member.CRC}\n".encode())
    if not archives:
        photos = (path for path in root.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
        for path in sorted(photos):
            state = path.stat()
            name = path.relative_to(root).as_posix()
            digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
