"""Features of all labelled photos, through the cache and in the precision that will serve."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from product_classifier.core.bundle import Precision
from product_classifier.core.files import sha256_bytes
from product_classifier.core.params import ImageParams
from product_classifier.core.progress import report_progress
from product_classifier.features.images import IMAGE_VERSION, PhotoError, preprocess_photo
from product_classifier.modeling.photo_features import PhotoFeatureExtractor, map_ahead
from product_classifier.train.dataset import Dataset
from product_classifier.train.feature_cache import FeatureCache, segments

logger = logging.getLogger(__name__)

DECODE_AHEAD = 32  # decoded photos held at once: 150 kB each at 224 pixels


@dataclass(frozen=True)
class PhotoIndex:
    """For each product the hash of its photo, or None without one; and a file name for each hash."""

    hashes: list[str | None]
    name_of: dict[str, str]


def index_photos(dataset: Dataset) -> PhotoIndex:
    """Hashes every product's photo; the hash names the photo in the feature cache."""
    hashes: list[str | None] = []
    name_of: dict[str, str] = {}
    for product in dataset.products:
        data = dataset.photos.read(product.photo_name)
        digest = sha256_bytes(data) if data is not None else None
        hashes.append(digest)
        if digest is not None:
            name_of.setdefault(digest, product.photo_name)
    return PhotoIndex(hashes, name_of)


def compute_features(
    dataset: Dataset,
    photos: PhotoIndex,
    network: Path | openvino.Model,
    precision: Precision,
    params: ImageParams,
    network_name: str,
    cache_root: Path,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Computes what the cache lacks and gathers the features of all products.

    Args:
        dataset: Products with photos.
        photos: Their hashes.
        network: The exported base.
        precision: What it calculates in.
        params: Size and cropping of photos, pooling.
        network_name: What makes the base's features its own; see `Backbone.features_name`.
        cache_root: Folder of all caches.

    Returns:
        Features `(N, F)`, float32, and `(N,)` which products have a usable photo.
    """
    extractor = PhotoFeatureExtractor(network, precision)
    key: dict[str, object] = {
        "network": network_name,
        "size": params.size,
        "crop": params.crop,
        "pooled_blocks": params.pooled_blocks,
        "precision": extractor.precision,
        "image_version": IMAGE_VERSION,
    }
    cache = FeatureCache(cache_root, key, extractor.feature_size)
    missing = cache.missing(digest for digest in photos.hashes if digest)
    logger.info("Photo features: %d in the cache, %d to compute", len(cache.rows), len(missing))
    with (
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        report_progress("Extracting photo features", len(missing), "photos") as progress,
    ):

        def decode(digest: str) -> NDArray[np.uint8] | None:
            data = dataset.photos.read(photos.name_of[digest])
            try:
                return preprocess_photo(data or b"", params.size, params.crop)
            except PhotoError:
                return None

        for segment in segments(missing):
            unusable: list[int] = []
            features = extractor.extract(
                _note_missing(map_ahead(pool, decode, segment, DECODE_AHEAD), unusable)
            )
            features[unusable] = np.nan  # remembered too: a broken photo is not tried again
            cache.add(segment, features)
            progress.advance(len(segment))
    gathered = cache.gather(photos.hashes)
    usable = ~np.isnan(gathered).any(axis=1) & np.array([h is not None for h in photos.hashes])
    gathered[~usable] = 0.0
    return gathered, usable


def _note_missing(
    photos: Iterator[NDArray[np.uint8] | None], missing: list[int]
) -> Iterator[NDArray[np.uint8] | None]:
    for index, pixels in enumerate(photos):
        if pixels is None:
            missing.append(index)
        yield pixels
