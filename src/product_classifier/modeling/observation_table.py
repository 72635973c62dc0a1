"""Observed products as CSV: numbers and codes, never texts. The bundle's reference rows and serve's recent ones."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from product_classifier.core.errors import DataValidationError
from product_classifier.modeling.drift import Answered
from product_classifier.modeling.observation import Observation

COLUMNS = (
    "text_length",
    "unknown_token_rate",
    "language",
    "brightness",
    "sharpness",
    "aspect",
    "has_title",
    "has_description",
    "has_photo",
    "predicted_code",
    "confidence",
)


def to_cells(row: Answered) -> list[str]:
    """Gives one row in the order of `COLUMNS`; what is not there is empty, yes and no are 1 and 0.

    Numbers keep all their digits: what is read back falls into the same bin.
    """
    facts = row.facts
    values = (
        facts.text_length,
        facts.unknown_token_rate,
        facts.language,
        facts.brightness,
        facts.sharpness,
        facts.aspect,
        int(facts.has_title),
        int(facts.has_description),
        int(facts.has_photo),
        row.predicted_code,
        row.confidence,
    )
    return ["" if value is None else str(value) for value in values]


def from_cells(cells: Mapping[str, str]) -> Answered:
    """Reads what `to_cells` wrote, by column name; further columns are left alone.

    Raises:
        DataValidationError: a column is missing or holds something else.
    """

    def number(name: str) -> float | None:
        return float(cells[name]) if cells[name] else None

    try:
        facts = Observation(
            text_length=int(cells["text_length"]),
            unknown_token_rate=number("unknown_token_rate"),
            language=cells["language"] or None,
            brightness=number("brightness"),
            sharpness=number("sharpness"),
            aspect=number("aspect"),
            has_title=bool(int(cells["has_title"])),
            has_description=bool(int(cells["has_description"])),
            has_photo=bool(int(cells["has_photo"])),
        )
        code = int(cells["predicted_code"]) if cells["predicted_code"] else None
        return Answered(facts, code, number("confidence"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataValidationError(
            f"A row of observations can't be read: {error!r}. Expected columns: {', '.join(COLUMNS)}."
        ) from error


def format_table(rows: Iterable[Answered], extra: Mapping[str, Sequence[str]] | None = None) -> str:
    """Writes rows as CSV with a header; `extra` columns come first and are parallel to the rows."""
    extra = extra or {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*extra, *COLUMNS])
    for index, row in enumerate(rows):
        writer.writerow([*(column[index] for column in extra.values()), *to_cells(row)])
    return text.getvalue()


def parse_table(text: str) -> list[Answered]:
    """Reads what `format_table` wrote.

    Raises:
        DataValidationError: it is no such table.
    """
    return [from_cells(cells) for cells in csv.DictReader(io.StringIO(text, newline=""))]


def read_table(path: Path) -> list[Answered]:
    """Reads a file of observations.

    Raises:
        DataValidationError: there is none, or it is no such table.
    """
    try:
        return parse_table(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataValidationError(f"{path} can't be read: {error}") from error
