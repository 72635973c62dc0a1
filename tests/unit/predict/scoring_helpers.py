"""What the tests of batch prediction share."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from product_classifier.core.catalogue import PRODUCT_COLUMNS, Product
from product_classifier.core.params import PredictParams
from product_classifier.core.settings import Settings

PARAMS = PredictParams(chunk_products=16)
SETTINGS = Settings(_env_file=None)  # type: ignore[call-arg]


def files_of(folder: Path) -> dict[str, bytes]:
    """Gives the content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(PRODUCT_COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def cells(product: Product, row: int | None = None) -> list[object]:
    index = product.row if row is None else row
    return [index, product.title, product.description, product.product_id, product.image_id]
