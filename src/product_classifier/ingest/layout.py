"""Finds the parts of a catalogue in the Rakuten layout, in a folder or a zip."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from product_classifier.core.errors import DataValidationError
from product_classifier.core.product_types import NAMES_FILE
from product_classifier.core.workspace import LABELS_FILE, TEST_FILE, TRAIN_FILE
from product_classifier.features.photos import SHARD_GLOB, PhotoStore
from product_classifier.ingest.unpack import extract_member, member_names, open_archive

IMAGES_ARCHIVE = "images.zip"
REQUIRED_TABLES = (TRAIN_FILE, LABELS_FILE)
OPTIONAL_TABLES = (TEST_FILE, NAMES_FILE)


@dataclass(frozen=True)
class Catalogue:
    """The parts of a catalogue: tables as files, photos by name."""

    train: Path
    labels: Path
    test: Path | None
    names: Path | None
    photos: PhotoStore


def _catalogue(tables: Path, photos: PhotoStore) -> Catalogue:
    test, names = tables / TEST_FILE, tables / NAMES_FILE
    return Catalogue(
        train=tables / TRAIN_FILE,
        labels=tables / LABELS_FILE,
        test=test if test.is_file() else None,
        names=names if names.is_file() else None,
        photos=photos,
    )


def _root_among(names: Iterable[str], where: str) -> PurePosixPath:
    """Gives the folder that holds the products file: the one nearest to the top."""
    found = {PurePosixPath(name).parent for name in names if PurePosixPath(name).name == TRAIN_FILE}
    roots = sorted(found, key=lambda root: (len(root.parts), str(root)))
    if not roots:
        raise DataValidationError(
            f"There is no {TRAIN_FILE} in {where}. Expected the Rakuten layout: "
            f"{', '.join(REQUIRED_TABLES)}, and photos in {IMAGES_ARCHIVE} or images/."
        )
    if len(roots) > 1 and len(roots[0].parts) == len(roots[1].parts):
        raise DataValidationError(
            f"{where} holds more than one catalogue: in {roots[0]} and in {roots[1]}."
        )
    return roots[0]


def catalogue_root(folder: Path) -> Path:
    """Gives the folder that holds a catalogue's files: `folder` or one level below.

    Raises:
        DataValidationError: there is no products file, or more than one.
    """
    candidates = [*folder.glob(TRAIN_FILE), *folder.glob(f"*/{TRAIN_FILE}")]
    return folder / _root_among(
        (path.relative_to(folder).as_posix() for path in candidates), str(folder)
    )


def find_in_folder(folder: Path) -> Catalogue:
    """Finds a catalogue in a folder or one level below.

    Raises:
        DataValidationError: there is no products file or no photos.
    """
    root = catalogue_root(folder)
    return _catalogue(root, _photos_in(root))


def photo_root(folder: Path) -> Path:
    """Gives the place of the photos: shards, `images/`, `images.zip`, or the folder itself."""
    if any((folder / "photos").glob(SHARD_GLOB)):
        return folder / "photos"
    for name in ("images", IMAGES_ARCHIVE):
        if (folder / name).exists():
            return folder / name
    return folder


def _photos_in(folder: Path) -> PhotoStore:
    root = photo_root(folder)
    if root.is_file():
        open_archive(root).close()  # refuses what must not be unpacked
    photos = PhotoStore(root)
    if not len(photos):
        raise DataValidationError(
            f"There are no photos in {root}. Expected {IMAGES_ARCHIVE} or images/ with photos."
        )
    return photos


def find_in_zip(path: Path, scratch: Path) -> Catalogue:
    """Finds a catalogue in a zip, at its top or in a sub folder; unpacks tables into `scratch`.

    Raises:
        DataValidationError: the archive is refused, or has no products file or no photos.
    """
    with open_archive(path) as archive:
        names = member_names(archive)
        root = _root_among(names, path.name)
        for part in (*REQUIRED_TABLES, *OPTIONAL_TABLES, IMAGES_ARCHIVE):
            if (member := str(root / part)) in names:
                extract_member(archive, member, scratch / part)
    if (scratch / IMAGES_ARCHIVE).exists():
        return _catalogue(scratch, _photos_in(scratch))
    photos = PhotoStore(path)
    if not len(photos):
        raise DataValidationError(
            f"There are no photos in {path.name}. Expected {IMAGES_ARCHIVE} or images/ in it."
        )
    return _catalogue(scratch, photos)
