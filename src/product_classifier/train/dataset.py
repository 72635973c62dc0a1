"""The ingested catalogue as training needs it: texts, labels, photos and the frozen split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from product_classifier.core.catalogue import Product, load_labels, load_products
from product_classifier.core.errors import DataValidationError
from product_classifier.core.files import read_json, sha256_file
from product_classifier.core.workspace import LABELS_FILE, TRAIN_FILE
from product_classifier.features.labels import LabelMap
from product_classifier.features.photos import PhotoStore
from product_classifier.features.text import compose_text

SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """All labelled products; arrays and lists are parallel.

    `labels` holds label indices, shape `(N,)`; `sides` holds for each side the positions of its rows.
    """

    products: Sequence[Product]
    texts: Sequence[str]
    labels: NDArray[np.int64]
    label_map: LabelMap
    sides: dict[str, NDArray[np.int64]]
    photos: PhotoStore
    reference: dict[str, object]
    fingerprint: str

    @property
    def has_text(self) -> NDArray[np.bool_]:
        """Which products have a title or description left after cleaning."""
        return np.array([bool(text) for text in self.texts])

    def prior(self) -> NDArray[np.float64]:
        """Class shares of the training rows, shape `(K,)`, with add-one smoothing."""
        counts = np.bincount(self.labels[self.sides["train"]], minlength=len(self.label_map)) + 1.0
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares


def load_dataset(raw: Path) -> Dataset:
    """Reads what `ingest` published.

    Raises:
        DataValidationError: nothing was ingested, or split and tables do not fit each other.
    """
    if not (raw / "splits.json").is_file():
        raise DataValidationError(
            f"There is no catalogue at {raw}. Run `product-classifier ingest` first."
        )
    products = load_products(raw / TRAIN_FILE)
    codes = load_labels(raw / LABELS_FILE)
    splits = read_json(raw / "splits.json")
    position = {product.row: index for index, product in enumerate(products)}
    try:
        sides = {
            side: np.array([position[row] for row in splits[side]], dtype=np.int64)
            for side in SIDES
        }
        labelled = [codes[product.row] for product in products]
    except KeyError as error:
        raise DataValidationError(
            f"The split or the labels of {raw} do not fit its products: {error} is not in both. "
            "Run `product-classifier ingest` again."
        ) from None
    label_map = LabelMap(labelled)
    return Dataset(
        products=products,
        texts=[compose_text(product.title, product.description) for product in products],
        labels=label_map.encode(labelled),
        label_map=label_map,
        sides=sides,
        photos=PhotoStore(raw / "photos"),
        reference=read_json(raw / "reference_statistics.json"),
        fingerprint=sha256_file(raw / "manifest.json"),
    )
