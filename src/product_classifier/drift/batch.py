"""The last batch prediction as observations: what was scored, looked at again, and what was answered."""

import csv
import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from product_classifier.core.bundle import TOKENIZER, Bundle
from product_classifier.core.catalogue import Product
from product_classifier.core.errors import ArtifactError, ConfigurationError, DataValidationError
from product_classifier.core.files import read_json, sha256_file
from product_classifier.core.workspace import Workspace
from product_classifier.drift.bundles import Referenced, open_referenced
from product_classifier.drift.comparison import Comparison, check_not_empty
from product_classifier.features.photos import PhotoStore
from product_classifier.features.text import encode_texts, load_tokenizer
from product_classifier.modeling.drift import Answered
from product_classifier.modeling.observation import observe
from product_classifier.modeling.predictor import ProductInput, decode_product

KIND = "batch"
SAMPLE = (
    2000  # products looked at: more shift a share by less than a percent, and cost a photo each
)
PREDICTIONS, SUMMARY = "predictions.csv", "summary.json"
# What an archive with a damaged, encrypted or oddly compressed member raises.
_UNREADABLE = (ArtifactError, zlib.error, RuntimeError, EOFError)


@dataclass(frozen=True)
class Batch:
    """What the last batch prediction says of itself."""

    bundle_id: str
    dataset: str | None
    dataset_sha256: str | None
    answers: Mapping[int, tuple[int | None, float | None]]  # row → code and confidence

    def check_dataset(self, path: Path) -> None:
        """Makes sure that a products file is the one that was scored.

        Raises:
            DataValidationError: it is another one by now.
        """
        if sha256_file(path) != self.dataset_sha256:
            raise DataValidationError(
                f"{path} is not the file that was scored ({self.dataset}, sha256 "
                f"{str(self.dataset_sha256)[:12]}…). Run `product-classifier predict` first."
            )


def read_batch(workspace: Workspace) -> Batch:
    """Reads what `predict` published.

    Raises:
        ConfigurationError: nothing was scored yet.
        DataValidationError: the predictions can't be read.
    """
    folder = workspace.predictions
    try:
        summary = read_json(folder / SUMMARY)
        with (folder / PREDICTIONS).open(newline="", encoding="utf-8") as file:
            answers = dict(_answer(cells) for cells in csv.DictReader(file) if cells["row"])
        return Batch(summary["bundle_id"], summary["dataset"], summary["dataset_sha256"], answers)
    except FileNotFoundError:
        raise ConfigurationError(
            f"There are no predictions at {folder}. Run `product-classifier predict` first."
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataValidationError(
            f"The predictions at {folder} can't be read: {error!r}"
        ) from error


def _answer(cells: Mapping[str, str]) -> tuple[int, tuple[int | None, float | None]]:
    code, confidence = cells["code"], cells["confidence"]
    return int(cells["row"]), (int(code) if code else None, float(confidence) if code else None)


def draw_sample(rows: Sequence[int], size: int) -> list[int]:
    """Draws rows by their hashes: the same ones of the same batch, whatever their order in the file."""
    drawn = sorted(rows, key=lambda row: hashlib.sha256(str(row).encode()).digest())[:size]
    return sorted(drawn)


def compare_batch(
    workspace: Workspace,
    batch: Batch,
    products: Mapping[int, Product],
    photos: PhotoStore | None,
    *,
    sample: int = SAMPLE,
) -> Comparison:
    """Compares the last batch with the reference of the bundle that scored it.

    Args:
        workspace: Where the bundle is.
        batch: What was answered.
        products: The products of the file that was scored, by row.
        photos: Theirs; None: there are none.
        sample: How many products are looked at, at most.

    Raises:
        ConfigurationError: the bundle is not here.
        ArtifactError: the bundle is damaged.
        NothingToDo: the bundle has no reference, or the batch no product.
    """
    rows = [row for row in batch.answers if row in products]
    check_not_empty(rows, "the last batch prediction")
    referenced = open_referenced(workspace, batch.bundle_id)
    current = _observe(
        referenced, batch, [products[row] for row in draw_sample(rows, sample)], photos
    )
    context = {"dataset": f"{batch.dataset}, sha256 {str(batch.dataset_sha256)[:12]}"}
    return Comparison(
        kind=KIND,
        subject="the last batch prediction",
        content_id=referenced.bundle.manifest.content_id,
        reference=referenced.reference,
        reference_rows=referenced.rows,
        current=current,
        population=len(rows),
        context=context,
    )


def _observe(
    referenced: Referenced, batch: Batch, products: Sequence[Product], photos: PhotoStore | None
) -> list[Answered]:
    bundle = referenced.bundle
    tokenizer = load_tokenizer(bundle.file(TOKENIZER))

    def look(product: Product) -> Answered:
        return _look(bundle, tokenizer, product, photos, batch.answers[product.row])

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(look, products))


def _look(
    bundle: Bundle,
    tokenizer: Tokenizer,
    product: Product,
    photos: PhotoStore | None,
    answer: tuple[int | None, float | None],
) -> Answered:
    preprocessing = bundle.manifest.preprocessing
    photo = _read(photos, product.photo_name)
    decoded = decode_product(ProductInput(product.title, product.description, photo), preprocessing)
    tokens = encode_texts(tokenizer, [decoded.text], preprocessing.max_tokens)
    return Answered(observe(decoded, tokens[0]), *answer)


def _read(photos: PhotoStore | None, name: str) -> bytes | None:
    try:
        return photos.read(name) if photos else None
    except _UNREADABLE:
        return None  # as `predict`, which named it in its table
