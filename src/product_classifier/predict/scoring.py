"""From rows to answers: photos are decoded in threads while the networks work on earlier ones."""

import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from product_classifier.core.errors import ArtifactError, DataValidationError
from product_classifier.features.photos import PhotoStore
from product_classifier.modeling.fusion import NOTHING
from product_classifier.modeling.photo_features import map_ahead
from product_classifier.modeling.predictor import DecodedProduct, Predictor, ProductInput
from product_classifier.predict.answers import Answer, answer, refuse
from product_classifier.predict.rows import ScoringRow

BLOCK = 32  # products that the text branch and the fusion take at once
DECODE_AHEAD = 32  # decoded photos held at once: 150 kB each at 224 pixels
# Stands for pixels that the network has seen and nobody needs any more.
_SEEN: NDArray[np.uint8] = np.empty((0, 0, 3), dtype=np.uint8)
# What an archive with a damaged, encrypted or oddly compressed member raises.
_UNREADABLE = (ArtifactError, zlib.error, RuntimeError, EOFError)


@dataclass(frozen=True, slots=True)
class _Prepared:
    row: ScoringRow
    decoded: DecodedProduct
    photo_error: str | None


def open_photos(path: Path | None) -> PhotoStore | None:
    """Opens the photos, or gives None where there are none.

    Raises:
        DataValidationError: the path is no folder and no readable zip.
    """
    try:
        return PhotoStore(path) if path else None
    except ArtifactError as error:
        raise DataValidationError(str(error)) from error


def score_chunks(
    predictor: Predictor, photos: PhotoStore | None, chunks: Sequence[Sequence[ScoringRow]]
) -> Iterator[list[Answer]]:
    """Scores chunk after chunk; the next one's photos are already being decoded meanwhile."""

    def prepare(row: ScoringRow) -> _Prepared:
        return _prepare(predictor, photos, row)

    usable = (row for chunk in chunks for row in chunk if row.product is not None)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        prepared = map_ahead(pool, prepare, usable, DECODE_AHEAD)
        for chunk in chunks:
            wanted = sum(row.product is not None for row in chunk)
            scored = _score(predictor, islice(prepared, wanted))
            refused = (refuse(row, row.error or "") for row in chunk if row.product is None)
            yield sorted((*scored, *refused), key=lambda one: one.position)


def _prepare(predictor: Predictor, photos: PhotoStore | None, row: ScoringRow) -> _Prepared:
    product = row.product
    assert product is not None
    data, problem = None, None
    try:
        data = photos.read(product.photo_name) if photos else None
        if photos and data is None:
            problem = f"There is no photo {product.photo_name}."
    except _UNREADABLE as error:
        problem = f"Photo {product.photo_name} can't be read: {type(error).__name__}."
    decoded = predictor.decode(ProductInput(product.title, product.description, data))
    return _Prepared(row, decoded, decoded.photo_error or problem)


def _score(predictor: Predictor, prepared: Iterator[_Prepared]) -> list[Answer]:
    kept: list[_Prepared] = []

    def pixels() -> Iterator[NDArray[np.uint8] | None]:
        for one in prepared:
            seen = None if one.decoded.pixels is None else _SEEN
            kept.append(replace(one, decoded=replace(one.decoded, pixels=seen)))
            yield one.decoded.pixels

    features = predictor.extractor.extract(pixels())
    answers: list[Answer] = []
    for start in range(0, len(kept), BLOCK):
        answers += _answer(predictor, kept[start : start + BLOCK], features[start : start + BLOCK])
    return answers


def _answer(
    predictor: Predictor, block: list[_Prepared], features: NDArray[np.float32]
) -> list[Answer]:
    """Scores up to `BLOCK` products, filled up to exactly that many.

    In a block of another size the arithmetic rounds otherwise: an answer's last digits would then depend on its
    neighbours, and a sharded or resumed run would differ from a whole one.
    """
    decoded = [one.decoded for one in block]
    fill = BLOCK - len(block)
    probabilities = predictor.fuse(
        [one.text for one in decoded] + [""] * fill,
        np.pad(features, ((0, fill), (0, 0))),
        np.array([one.pixels is not None for one in decoded] + [False] * fill),
    )
    predictions = predictor.encode(decoded, probabilities[: len(block)])
    return [
        refuse(one.row, "There is neither text nor a usable photo.", one.photo_error)
        if prediction.modalities == NOTHING
        else answer(one.row, prediction, one.photo_error)
        for one, prediction in zip(block, predictions, strict=True)
    ]
