"""Photo features, computed once: adding 200 products costs 200 photos, and a kill costs one segment.

Keyed by weights, photo size, cropping, pooling and precision; within a key by the photo's content. Segments are
written whole and renamed into place, and never changed.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from product_classifier.core.files import canonical_json, sha256_bytes, write_json_atomic

logger = logging.getLogger(__name__)

SEGMENT_PHOTOS = 256
_SEGMENT_GLOB = "segment-*.npz"


class FeatureCache:
    """Features of one network, keyed by photo content."""

    def __init__(self, root: Path, key: dict[str, object], feature_size: int) -> None:
        """Opens the cache of `key` below `root` and loads what is in it (about 2 kB per photo).

        Args:
            root: Folder of all caches.
            key: What determines a feature: weights hash, size, crop, pooled blocks, precision, version.
            feature_size: Length of a feature row.
        """
        self.folder = root / sha256_bytes(canonical_json(key))[:16]
        self.feature_size = feature_size
        self.rows: dict[str, NDArray[np.float16]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self.folder / "key.json", key)
        for path in self.folder.glob(".segment-*.tmp"):  # left by a kill
            path.unlink(missing_ok=True)
        for path in sorted(self.folder.glob(_SEGMENT_GLOB)):
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            # Opened here: np.load leaves a file that is no archive open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                names, features = content["photos"], content["features"]
            if features.shape != (len(names), self.feature_size):
                raise ValueError(f"shape {features.shape}")  # noqa: TRY301
        except (
            Exception
        ) as error:  # BadZipFile, ValueError, KeyError, MemoryError…: bytes can be anything
            logger.warning(
                "Feature segment %s is damaged (%s): its photos are done again.", path.name, error
            )
            path.unlink(missing_ok=True)
            return
        self.rows.update(zip(names.tolist(), features, strict=True))

    def missing(self, photos: Iterable[str]) -> list[str]:
        """Lists the photo hashes without features, each once, in first-seen order."""
        return list(dict.fromkeys(photo for photo in photos if photo not in self.rows))

    def add(self, photos: list[str], features: NDArray[np.float32]) -> None:
        """Keeps features `(N, F)` of photos named by hash, as one new segment."""
        rows = features.astype(np.float16)
        name = f"segment-{sha256_bytes(canonical_json(photos))[:16]}.npz"
        temporary = self.folder / f".{name}.tmp"
        with temporary.open("wb") as file:
            np.savez(file, photos=np.array(photos), features=rows)
        temporary.replace(self.folder / name)
        self.rows.update(zip(photos, rows, strict=True))

    def gather(self, photos: Iterable[str | None]) -> NDArray[np.float32]:
        """Gives features in order, shape `(N, F)`, float32; zeros where there is no photo."""
        wanted = list(photos)
        features = np.zeros((len(wanted), self.feature_size), dtype=np.float32)
        for index, photo in enumerate(wanted):
            if photo is not None:
                features[index] = self.rows[photo]
        return features


def segments(photos: list[str]) -> Iterator[list[str]]:
    """Cuts a list into what one segment holds."""
    for start in range(0, len(photos), SEGMENT_PHOTOS):
        yield photos[start : start + SEGMENT_PHOTOS]
