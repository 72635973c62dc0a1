"""The test split three ways: as training evaluated it, its products, and what batch prediction says about them."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from product_classifier.core.catalogue import PRODUCT_COLUMNS, Product, load_products
from product_classifier.core.params import PredictParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TRAIN_FILE, Workspace
from product_classifier.features.photos import PhotoStore
from product_classifier.predict.job import Request
from product_classifier.predict.predict import predict
from trained import EVALUATION

TOLERANCE = 1e-3  # of a confidence


@dataclass(frozen=True)
class Evaluated:
    """All lists are in the order of the products."""

    products: list[Product]
    photos: list[bytes | None]
    codes: list[int]
    confidence: list[float]
    table: list[dict[str, str]]  # the lines of `predictions.csv`


def evaluate(trained: Workspace, folder: Path) -> Evaluated:
    """Reads what training's evaluation saw on the test split, and scores the same products as a batch in `folder`."""
    by_row = {product.row: product for product in load_products(trained.raw / TRAIN_FILE)}
    with np.load(trained.root / EVALUATION) as seen:
        products = [by_row[row] for row in seen["rows"].tolist()]
        probabilities = seen["probabilities"]
        codes = seen["codes"][probabilities.argmax(axis=1)].tolist()
    store = PhotoStore(trained.raw / "photos")
    photos = [store.read(product.photo_name) for product in products]
    store.close()
    table = _batch_prediction(trained, Workspace(folder), products)
    return Evaluated(products, photos, codes, probabilities.max(axis=1).tolist(), table)


def _batch_prediction(
    trained: Workspace, workspace: Workspace, products: list[Product]
) -> list[dict[str, str]]:
    dataset = workspace.root / "test_split.csv"
    with dataset.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(PRODUCT_COLUMNS)
        for one in products:
            writer.writerow([one.row, one.title, one.description, one.product_id, one.image_id])
    request = Request(dataset, trained.raw / "photos", str(trained.candidate))
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    predict(workspace, settings, PredictParams(chunk_products=10), request)
    with (workspace.predictions / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
