"""Finding a product's photo, wherever the photos lie: a folder, a zip, or the shards that `ingest` publishes."""

import hashlib
import threading
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from product_classifier.core.errors import ArtifactError

SHARD_GLOB = "shard-*.zip"
SHARD_PREFIX = "shard-"
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})


def shard_of(name: str, shards: int) -> int:
    """Gives the shard that holds the photo called `name`: the same on every machine, evenly spread."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % shards


def write_shard(path: Path, photos: Mapping[str, bytes]) -> None:
    """Writes photos (file name → content) as one uncompressed zip.

    Equal photos give equal bytes: members are sorted and carry a fixed date. Stored, not deflated: JPEG does not
    shrink, and a member can be read at once.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(photos):
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), photos[name])


class PhotoStore:
    """Reads photos by file name, from any thread. Archives are opened on first use and kept open."""

    def __init__(self, root: Path) -> None:
        """Looks at `root` without reading a photo.

        Args:
            root: A folder that holds photos or shards at any depth, or one zip.

        Raises:
            ArtifactError: `root` does not exist or is no zip.
        """
        self.root = root
        self._files: dict[str, Path] = {}
        self._members: dict[str, tuple[Path, str]] = {}
        self._archives: dict[Path, zipfile.ZipFile] = {}
        self._lock = threading.Lock()
        if root.is_dir():
            shards = sorted(root.rglob(SHARD_GLOB))
            self._index_archives(shards)
            if not shards:
                self._index_folder(root)
        elif root.is_file():
            self._index_archives([root])
        else:
            raise ArtifactError(f"There are no photos at {root}: no such folder or zip.")

    def _index_folder(self, root: Path) -> None:
        for path in root.rglob("*"):
            if path.suffix.lower() in PHOTO_SUFFIXES and "__MACOSX" not in path.parts:
                self._files[path.name] = path

    def _index_archives(self, paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                archive = self._archives[path] = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, OSError) as error:
                raise ArtifactError(f"{path} is no readable zip: {error}") from error
            for member in archive.namelist():
                name = PurePosixPath(member)
                if name.suffix.lower() in PHOTO_SUFFIXES and "__MACOSX" not in name.parts:
                    self._members[name.name] = (path, member)

    def __len__(self) -> int:
        """Counts the photos."""
        return len(self._files) or len(self._members)

    def __contains__(self, name: object) -> bool:
        """Says whether there is a photo of that file name."""
        return name in self._files or name in self._members

    def names(self) -> list[str]:
        """Lists the photos' file names, sorted."""
        return sorted(self._files or self._members)

    def read(self, name: str) -> bytes | None:
        """Reads one photo's bytes, or gives None where there is no such photo.

        Raises:
            ArtifactError: the photo is listed but can't be read (damaged archive, disk fault).
        """
        try:
            if name in self._files:
                return self._files[name].read_bytes()
            if name in self._members:
                path, member = self._members[name]
                with self._lock:  # a ZipFile shares one file position between threads
                    return self._archives[path].read(member)
        except (OSError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"Photo {name} in {self.root} can't be read: {error}") from error
        return None

    def close(self) -> None:
        """Closes the archives."""
        for archive in self._archives.values():
            archive.close()
