"""What drift is measured against: test products as serving would observe them, and what the model answered."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from product_classifier.core.bundle import Preprocessing
from product_classifier.core.progress import report_progress
from product_classifier.features.labels import LabelMap
from product_classifier.modeling.drift import Answered
from product_classifier.modeling.fusion import FloatArray
from product_classifier.modeling.observation import Observation, observe
from product_classifier.modeling.photo_features import map_ahead
from product_classifier.modeling.predictor import ProductInput, decode_product
from product_classifier.train.dataset import Dataset

# Enough: a window of 500 varies twice as much. More would cost photos to read, and bytes in every bundle.
MAX_PRODUCTS = 2_000
_SEED = 0
_AHEAD = 16
_THREADS = 4


def reference_rows(test: NDArray[np.int64]) -> NDArray[np.int64]:
    """Chooses at most `MAX_PRODUCTS` positions among the test side's, by lot, always the same ones."""
    chosen = np.random.default_rng(_SEED).permutation(len(test))[:MAX_PRODUCTS]
    return np.sort(chosen)


def observe_test_products(
    dataset: Dataset,
    tokens: NDArray[np.int32],
    probabilities: FloatArray,
    preprocessing: Preprocessing,
) -> list[Answered]:
    """Observes test products.

    Args:
        dataset: All products.
        tokens: What the text network reads of each, shape `(N, max_tokens)`.
        probabilities: Answers for the test side, in its order, shape `(n_test, K)`.
        preprocessing: The bundle's.

    Returns:
        One row for each of `reference_rows`.
    """
    test = dataset.sides["test"]
    positions = reference_rows(test)

    def look(position: int) -> Observation:
        row = int(test[position])
        product = dataset.products[row]
        photo = dataset.photos.read(product.photo_name)
        decoded = decode_product(
            ProductInput(product.title, product.description, photo), preprocessing
        )
        return observe(decoded, tokens[row])

    rows = []
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        report_progress("Observing test products", len(positions), "products") as progress,
    ):
        observed = map_ahead(pool, look, [int(position) for position in positions], _AHEAD)
        for position, facts in zip(positions, observed, strict=True):
            rows.append(_answered(facts, probabilities[position], dataset.label_map))
            progress.advance()
    return rows


def _answered(facts: Observation, probabilities: FloatArray, labels: LabelMap) -> Answered:
    if not (facts.text_length or facts.has_photo):
        return Answered(facts, None, None)
    best = int(probabilities.argmax())
    return Answered(facts, labels.codes[best], float(probabilities[best]))
