"""Reading what is to be scored without losing a row: one that can't be used is kept with the reason."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core.catalogue import PRODUCT_COLUMNS, Product, read_rows_or_faults

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class ScoringRow:
    """One row of the file: a product, or what stands against it.

    `position` counts rows from 0, `line` lines of the file from 1. `row` is the row index, None where it
    can't be used.
    """

    position: int
    line: int
    row: int | None
    product: Product | None
    error: str | None = None


def read_scoring_rows(path: Path) -> list[ScoringRow]:
    """Reads every row of a products file; each gets an entry, whatever is in it.

    Raises:
        DataValidationError: the file can't be read or lacks a column.
    """
    return list(_tolerant_rows(path))


def _tolerant_rows(path: Path) -> Iterator[ScoringRow]:
    first_line: dict[int, int] = {}
    for position, (line, fields) in enumerate(read_rows_or_faults(path, PRODUCT_COLUMNS)):
        if isinstance(fields, str):
            yield ScoringRow(position, line, None, None, f"The row {_as_clause(fields)}")
            continue
        parsed = _parse(position, line, fields)
        if parsed.row is not None and first_line.setdefault(parsed.row, line) != line:
            error = f"Row index {parsed.row} is used on line {first_line[parsed.row]} already."
            parsed = ScoringRow(position, line, None, None, error)
        yield parsed


def _as_clause(fault: str) -> str:
    return fault if fault.startswith("is ") else f"has the {fault}"


def _parse(position: int, line: int, fields: dict[str, str]) -> ScoringRow:
    numbers, errors = {}, []
    for column, name in (("", "index"), ("productid", "productid"), ("imageid", "imageid")):
        text = fields[column].strip()
        if _WHOLE_NUMBER.fullmatch(text):
            numbers[name] = int(text)
        else:
            shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
            errors.append(f"Column {name}: expected a whole number. Received: {shown!r}.")
    if errors:
        return ScoringRow(position, line, numbers.get("index"), None, " ".join(errors))
    product = Product(
        row=numbers["index"],
        title=fields["designation"],
        description=fields["description"],
        product_id=numbers["productid"],
        image_id=numbers["imageid"],
    )
    return ScoringRow(position, line, product.row, product)
