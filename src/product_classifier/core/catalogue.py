"""The catalogue's tables: from the published columns to typed products.

Published columns (Rakuten layout): an unnamed row index, `designation`, `description`, `productid`, `imageid`; labels
in a file of their own with `prdtypecode`. From here on they are `title`, `description`, `product_id`, `image_id` and
`product_code`.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core.errors import DataValidationError

NOT_CSV = "is not UTF-8 CSV: "
PRODUCT_COLUMNS = ("", "designation", "description", "productid", "imageid")
LABEL_COLUMNS = ("", "prdtypecode")

# Descriptions are whole HTML pages at times; Python's default limit is 131,072 characters.
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


@dataclass(frozen=True, slots=True)
class Product:
    """One row of the catalogue, as text and numbers; the photo is found by `photo_name`."""

    row: int
    title: str
    description: str
    product_id: int
    image_id: int

    @property
    def photo_name(self) -> str:
        """File name of the product's photo in the Rakuten layout."""
        return photo_name(self.image_id, self.product_id)


def photo_name(image_id: int, product_id: int) -> str:
    """Names a photo file as Rakuten does."""
    return f"image_{image_id}_product_{product_id}.jpg"


def read_rows_or_faults(
    path: Path, columns: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Reads a CSV file's rows with their line numbers; a row that can't be read is given as what is wrong with it.

    Raises:
        DataValidationError: the file is missing, not UTF-8 CSV, lacks one of `columns`, or ends in an open quote.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            found = list(reader.fieldnames or ())
            if missing := [column for column in columns if column not in found]:
                raise DataValidationError(
                    f"{path.name}: missing columns {missing}. Expected {list(columns)}. Received: {found}."
                )
            yield from _rows_or_faults(path, reader)
    except FileNotFoundError:
        raise DataValidationError(f"There is no {path}.") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataValidationError(f"{path.name} is not UTF-8 CSV: {error}") from error


def _rows_or_faults(
    path: Path, reader: "csv.DictReader[str]"
) -> Iterator[tuple[int, dict[str, str] | str]]:
    while True:
        first_line = reader.reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise DataValidationError(
                    f"{path.name} is not UTF-8 CSV: the quote opened in the row at line {first_line} "
                    "is never closed."
                ) from error
            yield reader.reader.line_num, f"{NOT_CSV}{error}"
            continue
        if None in row or None in row.values():
            yield reader.line_num, "wrong number of fields."
        else:
            yield reader.line_num, row


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Reads a CSV file's rows with their line numbers.

    Raises:
        DataValidationError: the file is missing, not UTF-8 CSV, or lacks one of `columns`.
    """
    for line, row in read_rows_or_faults(path, columns):
        if isinstance(row, str):
            raise DataValidationError(f"{path.name}, line {line}: {row}")
        yield line, row


def _integer(path: Path, line: int, column: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        name = column or "index"
        raise DataValidationError(
            f"{path.name}, line {line}, column {name}: expected a whole number. Received: {value!r}."
        ) from None


def load_products(path: Path) -> list[Product]:
    """Reads a products file that validation has passed.

    Raises:
        DataValidationError: a column is missing or a number is none; names file, line, column and value.
    """
    return [
        Product(
            row=_integer(path, line, "", row[""]),
            title=row["designation"],
            description=row["description"],
            product_id=_integer(path, line, "productid", row["productid"]),
            image_id=_integer(path, line, "imageid", row["imageid"]),
        )
        for line, row in read_rows(path, PRODUCT_COLUMNS)
    ]


def load_labels(path: Path) -> dict[int, int]:
    """Reads a labels file as row index → product code.

    Raises:
        DataValidationError: a column is missing or a number is none; names file, line, column and value.
    """
    return {
        _integer(path, line, "", row[""]): _integer(path, line, "prdtypecode", row["prdtypecode"])
        for line, row in read_rows(path, LABEL_COLUMNS)
    }
