"""What new products cost: photo features are computed once, so 200 products more cost 200 photos.

    python benchmarks/feature_cache.py models/candidate --raw data/raw --products 1000 --new 200

Starts with an empty cache, extracts the features of all products but the new ones, adds those, and asks once more.
What is counted are the photos that reach the network. Exit code 1 if new products cost more than their own photos.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from product_classifier.core import bundle as parts
from product_classifier.core.bundle import Bundle, load_bundle
from product_classifier.core.params import ImageParams
from product_classifier.modeling.photo_features import PhotoFeatureExtractor
from product_classifier.train import photo_features
from product_classifier.train.dataset import Dataset, load_dataset
from product_classifier.train.photo_features import PhotoIndex, compute_features, index_photos


@dataclass
class Step:
    """One look at the cache."""

    name: str
    products: int
    photos: int  # different ones, by content
    extracted: int
    seconds: float


class CountingExtractor(PhotoFeatureExtractor):
    """The extractor that training uses; counts the photos that reach the network."""

    extracted = 0

    def extract(self, photos: Iterable[NDArray[np.uint8] | None]) -> NDArray[np.float32]:
        """Extracts and counts."""

        def counted() -> Iterable[NDArray[np.uint8] | None]:
            for pixels in photos:
                CountingExtractor.extracted += pixels is not None
                yield pixels

        return super().extract(counted())


def take(name: str, dataset: Dataset, photos: PhotoIndex, bundle: Bundle, cache: Path) -> Step:
    """Gathers the features of some products as training does."""
    manifest = bundle.manifest
    params = ImageParams(
        size=manifest.preprocessing.image_size,
        crop=manifest.preprocessing.crop,
        pooled_blocks=manifest.backbone.pooled_blocks,
    )
    before, started = CountingExtractor.extracted, time.perf_counter()
    compute_features(
        dataset,
        photos,
        bundle.file(parts.IMAGE_BASE_NETWORK),
        manifest.backbone.precision,
        params,
        manifest.backbone.weights_sha256,
        cache,
    )
    seconds = time.perf_counter() - started
    different = len(set(photos.hashes) - {None})
    extracted = CountingExtractor.extracted - before
    return Step(name, len(dataset.products), different, extracted, seconds)


def measure(dataset: Dataset, bundle: Bundle, new: int) -> list[Step]:
    """Takes all but the new products, then all of them, then all of them again."""
    earlier = replace(dataset, products=dataset.products[:-new])
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        return [
            take(name, some, index_photos(some), bundle, cache)
            for name, some in (
                ("empty cache", earlier),
                (f"{new} more", dataset),
                ("again", dataset),
            )
        ]


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("bundle", type=Path, help="folder of a bundle, for its network")
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="ingested catalogue")
    parser.add_argument("--products", type=int, default=1000, help="products in all")
    parser.add_argument("--new", type=int, default=200, help="of these, added later")
    arguments = parser.parse_args()
    if not 0 < arguments.new < arguments.products:
        parser.error(f"--new must be above 0 and below --products ({arguments.products}).")

    photo_features.PhotoFeatureExtractor = CountingExtractor  # type: ignore[misc]
    whole = load_dataset(arguments.raw)
    dataset = replace(whole, products=whole.products[: arguments.products])
    first, more, again = measure(dataset, load_bundle(arguments.bundle), arguments.new)
    print(f"{'':14}{'products':>10}{'photos':>10}{'extracted':>11}{'seconds':>10}")
    for step in (first, more, again):
        print(
            f"{step.name:14}{step.products:>10}{step.photos:>10}{step.extracted:>11}{step.seconds:>10.1f}"
        )
    only_new = more.extracted <= more.photos - first.photos and again.extracted == 0
    return 0 if only_new else 1


if __name__ == "__main__":
    sys.exit(main())
