"""Reads the catalogue's CSV files, naming every broken row instead of stopping at the first."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from product_classifier.core.catalogue import LABEL_COLUMNS, PRODUCT_COLUMNS, Product
from product_classifier.ingest.faults import Findings, Offender, shown

# At most 18 digits fit 64 bits. ASCII only: int() would also take Arabic digits, blanks and
# underscores.
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_INDEX = "index"  # what messages call the unnamed first column


class ProductTable:
    """Products that could be read, each with the line it ends on."""

    def __init__(self, name: str) -> None:
        """Starts empty; `name` is the file's name in messages."""
        self.name = name
        self.products: list[Product] = []
        self.lines: list[int] = []


class LabelTable:
    """Labels that could be read: row index, product code and line."""

    def __init__(self, name: str) -> None:
        """Starts empty; `name` is the file's name in messages."""
        self.name = name
        self.rows: list[tuple[int, int, int]] = []


def _read(
    path: Path, columns: tuple[str, ...], findings: Findings
) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not _header_is_usable(path.name, header, columns, findings):
                return
            for fields in reader:
                if len(fields) == len(header):
                    yield reader.line_num, dict(zip(header, fields, strict=True))
                elif fields:
                    findings.fault(
                        "fields",
                        f"Rows with a wrong number of fields. Expected {len(header)}.",
                        Offender(path.name, reader.line_num, "", f"{len(fields)} fields"),
                    )
    except FileNotFoundError:
        findings.fault("file", "A file is missing.", Offender(path.name, None, "", "not found"))
    except (UnicodeDecodeError, csv.Error) as error:
        findings.fault("csv", "A file is not UTF-8 CSV.", Offender(path.name, None, "", str(error)))


def _header_is_usable(
    name: str, header: list[str], columns: tuple[str, ...], findings: Findings
) -> bool:
    missing = [column or _INDEX for column in columns if column not in header]
    doubled = sorted({column or _INDEX for column in header if header.count(column) > 1})
    if missing:
        findings.fault(
            "columns",
            f"Columns are missing. Expected {[column or _INDEX for column in columns]}.",
            Offender(name, 1, "", f"no {', '.join(missing)}; received {header}"),
        )
    if doubled:
        findings.fault(
            "columns",
            "Columns appear twice.",
            Offender(name, 1, ", ".join(doubled), f"received {header}"),
        )
    return not missing and not doubled


def _integers(
    name: str, line: int, row: dict[str, str], columns: tuple[str, ...], findings: Findings
) -> list[int] | None:
    values = []
    for column in columns:
        text = row[column]
        if not text:
            message = "Ids or labels are missing."
            findings.fault("missing", message, Offender(name, line, column or _INDEX, shown(text)))
        elif not _INTEGER.fullmatch(text) or (column != "prdtypecode" and text.startswith("-")):
            message = "Ids and labels must be whole numbers, ids not negative."
            findings.fault("type", message, Offender(name, line, column or _INDEX, shown(text)))
        else:
            values.append(int(text))
    return values if len(values) == len(columns) else None


def read_products(path: Path, findings: Findings) -> ProductTable:
    """Reads a products file; broken rows become findings and are left out."""
    table = ProductTable(path.name)
    for line, row in _read(path, PRODUCT_COLUMNS, findings):
        numbers = _integers(path.name, line, row, ("", "productid", "imageid"), findings)
        if numbers is not None:
            index, product_id, image_id = numbers
            table.products.append(
                Product(index, row["designation"], row["description"], product_id, image_id)
            )
            table.lines.append(line)
    return table


def read_labels(path: Path, findings: Findings) -> LabelTable:
    """Reads a labels file; broken rows become findings and are left out."""
    table = LabelTable(path.name)
    for line, row in _read(path, LABEL_COLUMNS, findings):
        numbers = _integers(path.name, line, row, LABEL_COLUMNS, findings)
        if numbers is not None:
            table.rows.append((numbers[0], numbers[1], line))
    return table
