"""Batch scoring against Keras: products per second on the same bundle and products, in interleaved rounds.

    python benchmarks/batch_scoring.py models/champion --dataset data/raw/X_test_update.csv --photos data/raw/photos

Both sides start from CSV rows and photo files: reading, decoding, both branches and the fusion count. Keras is
`model.predict` in batches of 32 with VGG16 rebuilt from the bundle's own weights. Exit code 1 below the target ratio.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from numpy.typing import NDArray

from product_classifier.core import bundle as parts
from product_classifier.core.bundle import Bundle, load_bundle
from product_classifier.features.images import to_vgg16_input
from product_classifier.features.photos import PhotoStore
from product_classifier.features.text import encode_texts
from product_classifier.modeling.fusion import fuse
from product_classifier.modeling.predictor import DecodedProduct, Predictor, ProductInput
from product_classifier.modeling.vgg16_image_classifier import build_vgg16_base
from product_classifier.predict.rows import ScoringRow, read_scoring_rows
from product_classifier.predict.scoring import score_chunks

KERAS_BATCH = 32
CHUNK = 256
DECODING_THREADS = min(4, os.cpu_count() or 1)

Codes = list[int]


@dataclass
class Side:
    """One way to score, and what it took in each round."""

    name: str
    score: Callable[[Sequence[ScoringRow]], Codes]
    wall: list[float] = field(default_factory=list)  # seconds
    cpu: list[float] = field(default_factory=list)  # seconds of all threads

    def run(self, rows: Sequence[ScoringRow]) -> Codes:
        """Scores once and notes the time."""
        wall, cpu = time.perf_counter(), time.process_time()
        codes = self.score(rows)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return codes


def with_openvino(predictor: Predictor, photos: PhotoStore) -> Side:
    """Scores as `product-classifier predict` does."""

    def score(rows: Sequence[ScoringRow]) -> Codes:
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        answers = [one for chunk in score_chunks(predictor, photos, chunks) for one in chunk]
        return [one.top[0][0] if one.top else -1 for one in answers]

    return Side(f"predict ({predictor.extractor.precision})", score)


def with_keras(bundle: Bundle, predictor: Predictor, photos: PhotoStore) -> Side:
    """Scores with the bundle's Keras models; `predictor` only lends its decoder and its fusion weights."""
    preprocessing = bundle.manifest.preprocessing
    base = build_vgg16_base(preprocessing.image_size, bundle.manifest.backbone.pooled_blocks)
    with np.load(bundle.file(parts.IMAGE_BASE_WEIGHTS), allow_pickle=False) as content:
        base.set_weights([content[name] for name in sorted(content.files)])
    text = keras.models.load_model(bundle.file(parts.TEXT_MODEL), compile=False)
    head = keras.models.load_model(bundle.file(parts.IMAGE_MODEL), compile=False)
    blank = np.zeros((preprocessing.image_size, preprocessing.image_size, 3), dtype=np.uint8)

    def decode(row: ScoringRow) -> DecodedProduct:
        product = row.product
        if product is None:
            return DecodedProduct("", None)
        data = photos.read(product.photo_name)
        return predictor.decode(ProductInput(product.title, product.description, data))

    def score_batch(batch: list[DecodedProduct]) -> NDArray[np.int64]:
        pixels = np.stack([blank if one.pixels is None else one.pixels for one in batch])
        tokens = encode_texts(
            predictor.tokenizer, [one.text for one in batch], preprocessing.max_tokens
        )
        options = {"batch_size": KERAS_BATCH, "verbose": 0}
        features = base.predict(to_vgg16_input(pixels), **options)
        probabilities = fuse(
            predictor.weights,
            text.predict(tokens, **options).astype(np.float64),
            head.predict(features, **options).astype(np.float64),
            np.array([bool(one.text) for one in batch]),
            np.array([one.pixels is not None for one in batch]),
        )
        return probabilities.argmax(axis=1)

    def score(rows: Sequence[ScoringRow]) -> Codes:
        codes: Codes = []
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            for start in range(0, len(rows), KERAS_BATCH):
                batch = list(pool.map(decode, rows[start : start + KERAS_BATCH]))
                codes += [predictor.labels.codes[index] for index in score_batch(batch)]
        return codes

    return Side("Keras model.predict", score)


def show(sides: Sequence[Side], products: int, agreement: float) -> float:
    """Prints the table; gives the ratio of the first side's speed to the second's."""
    print(f"{'':24}{'products/s':>12}{'core-ms/product':>17}   rounds, products/s")
    rates = []
    for side in sides:
        speeds = [products / seconds for seconds in side.wall]
        rates.append(statistics.median(speeds))
        core = 1000 * statistics.median(side.cpu) / products
        each = " ".join(f"{speed:.1f}" for speed in speeds)
        print(f"{side.name:24}{rates[-1]:>12.1f}{core:>17.1f}   {each}")
    ratio = rates[0] / rates[1]
    cpu = statistics.median(sides[1].cpu) / statistics.median(sides[0].cpu)
    print(f"ratio {ratio:.1f} by time, {cpu:.1f} by CPU; top-1 agreement {agreement:.4f}")
    return ratio


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("bundle", type=Path, help="folder of a bundle")
    parser.add_argument("--dataset", type=Path, default=Path("data/raw/X_test_update.csv"))
    parser.add_argument("--photos", type=Path, default=Path("data/raw/photos"))
    parser.add_argument("--products", type=int, default=256, help="products per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-least", type=float, default=5.0, help="ratio to reach")
    arguments = parser.parse_args()

    bundle = load_bundle(arguments.bundle)
    predictor = Predictor(bundle)
    photos = PhotoStore(arguments.photos)
    rows = read_scoring_rows(arguments.dataset)[: arguments.products]
    sides = [with_openvino(predictor, photos), with_keras(bundle, predictor, photos)]
    for side in sides:
        side.score(rows[:KERAS_BATCH])  # Keras traces its functions on the first batch
    agreement = 0.0
    for _ in range(arguments.rounds):
        ours, theirs = (side.run(rows) for side in sides)
        agreement = float(np.mean(np.array(ours) == np.array(theirs)))
    print(
        f"bundle {bundle.bundle_id}, {len(rows)} products, {arguments.rounds} rounds, interleaved"
    )
    ratio = show(sides, len(rows), agreement)
    return 0 if ratio >= arguments.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
