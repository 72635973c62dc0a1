"""A span of time of what `serve` was asked, as the API tells it: numbers and codes, never texts."""

import csv
import io
import re
from datetime import datetime, timedelta

from product_classifier.core.errors import ConfigurationError, DataValidationError
from product_classifier.core.workspace import Workspace
from product_classifier.drift.bundles import open_referenced
from product_classifier.drift.comparison import Comparison, check_not_empty
from product_classifier.modeling.observation_table import from_cells

KIND = "window"
_SPAN = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_span(text: str) -> timedelta:
    """Reads a length of time, as `24h`.

    Raises:
        ConfigurationError: it is none.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(
            f"--since: expected minutes, hours or days, as 90m, 24h or 7d. Received: {text!r}."
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def compare_window(
    workspace: Workspace, table: str, since: datetime, until: datetime
) -> Comparison:
    """Compares what the API observed with the reference of the bundle that answered last.

    Args:
        workspace: Where that bundle is.
        table: The CSV of `/model/drift/observations`, oldest first, with the column `bundle_id`.
        since: From when the rows are.
        until: To when.

    Raises:
        DataValidationError: it is no such table.
        ConfigurationError: the bundle is not here.
        NothingToDo: nothing was asked in that time, or the bundle has no reference.
    """
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    subject = f"the requests from {_moment(since)} to {_moment(until)}"
    check_not_empty(rows, subject)
    bundle_id = rows[-1].get("bundle_id")
    if not bundle_id:
        raise DataValidationError("The API's observations do not say which bundle answered.")
    # An earlier bundle's answers are nothing to hold against this one.
    current = [from_cells(row) for row in rows if row["bundle_id"] == bundle_id]
    referenced = open_referenced(workspace, bundle_id)
    return Comparison(
        kind=KIND,
        subject=subject,
        content_id=referenced.bundle.manifest.content_id,
        reference=referenced.reference,
        reference_rows=referenced.rows,
        current=current,
        population=len(rows),
        context={"since": _moment(since), "until": _moment(until)},
    )


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
