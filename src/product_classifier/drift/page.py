"""The report as one HTML file, drawn by Evidently; it opens without a network.

Figures and verdicts are not Evidently's: each column's test is the population stability index, and the limit, that
`serve` and the alerts go by. So no two places say different things of the same products.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from product_classifier.drift.comparison import Columns, Comparison, to_columns
from product_classifier.modeling.drift import FeatureDrift

# What Evidently would report of its use; a report calls none of it, and these keep it so.
_QUIET = {"DO_NOT_TRACK": "1", "ITERATIVE_DO_NOT_TRACK": "1", "EVIDENTLY_DISABLE_TELEMETRY": "1"}
# A browser then loads nothing from elsewhere, whatever a later version of the library puts into the page.
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'unsafe-inline' 'unsafe-eval' data: blob:\">"
)
_SECTION = (
    "font-family:Roboto,Helvetica,Arial,sans-serif;line-height:1.5;max-width:1200px;"
    "margin:24px auto 0;padding:0 24px"
)
_CELL = "text-align:left;padding:2px 24px 2px 0"
_NOTE = (
    "The index sums, over the bins of the reference, how far the shares lie apart: 0 is equal, from 0.2 on it is "
    "large. The limit is 0.2, or more where so few products reach that by chance. Below, Drift Score is the index."
)


def render_page(comparison: Comparison) -> str:
    """Draws the report: about 4 MB of HTML that holds all that it needs, and no text and no photo of a product."""
    with _quietly():
        html = str(draw(comparison).get_html_str(as_iframe=False))
    return _insert(_insert(html, "<head>", _POLICY), "<body>", _summary(comparison))


def _insert(html: str, tag: str, addition: str) -> str:
    before, found, after = html.partition(tag)
    if not found:
        raise RuntimeError(f"Evidently's page has no {tag} to put something into.")
    return f"{before}{found}{addition}{after}"


def draw(comparison: Comparison) -> Any:
    """Has Evidently compare the columns; gives its snapshot."""
    with _quietly():
        return _draw(comparison)


@contextmanager
def _quietly() -> Iterator[None]:
    os.environ.update(_QUIET)
    with warnings.catch_warnings():
        # Its dependencies deprecate much, on import (which takes seconds) and while it draws.
        warnings.simplefilter("ignore")
        yield


def _draw(comparison: Comparison) -> Any:
    from evidently import Report
    from evidently.presets import DataDriftPreset

    reference = to_columns(comparison.reference_rows)
    current = to_columns(comparison.current)
    shown = {
        name: figure
        for name, figure in comparison.figures.features.items()
        if all(any(value is not None for value in side[name]) for side in (reference, current))
    }
    preset = DataDriftPreset(
        columns=list(shown),
        drift_share=1 / max(1, len(shown)),  # one drifted feature is enough
        per_column_method={name: _register(name, figure) for name, figure in shown.items()},
        per_column_threshold={name: figure.limit for name, figure in shown.items()},
    )
    bins = comparison.reference.features
    categories = [name for name in shown if bins[name].categories is not None]
    numbers = [name for name in shown if bins[name].categories is None]
    sides = [_dataset(side, numbers, categories) for side in (current, reference)]
    return Report([preset]).run(*sides)


def _dataset(columns: Columns, numbers: list[str], categories: list[str]) -> Any:
    import pandas as pd
    from evidently import DataDefinition, Dataset

    frame = pd.DataFrame(
        {name: pd.Series(list(columns[name]), dtype="float64") for name in numbers}
        | {name: pd.Series(list(columns[name]), dtype="object") for name in categories}
    )
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    return Dataset.from_pandas(frame, data_definition=definition)


def _register(name: str, figure: FeatureDrift) -> str:
    """Makes a feature's figure the result of a test that Evidently knows by name, and gives that name."""
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def found(_reference: Any, _current: Any, _kind: Any, _limit: float) -> tuple[float, bool]:
        return figure.psi, figure.has_drifted

    kinds = [ColumnType.Numerical, ColumnType.Categorical]
    shown = f"Population stability index, limit {figure.limit:.3f}"
    test_name = f"psi_of_{name}"
    register_stattest(StatTest(test_name, shown, kinds, figure.limit), found)
    return test_name


def _summary(comparison: Comparison) -> str:
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in _facts(comparison))
    head = _row(("Feature", "Index", "Limit", "Products", ""), "th")
    rows = "".join(
        _row((name, f"{one.psi:.3f}", f"{one.limit:.3f}", str(one.products), _word(one)), "td")
        for name, one in comparison.figures.features.items()
    )
    return (
        f'<section style="{_SECTION}"><h1>Drift of {escape(comparison.subject)}</h1>'
        f"<p><strong>{escape(comparison.verdict)}</strong></p><ul>{facts}</ul>"
        f"<table>{head}{rows}</table><p>{_NOTE}</p></section>"
    )


def _word(figure: FeatureDrift) -> str:
    return "drift" if figure.has_drifted else "as in the reference"


def _row(cells: tuple[str, ...], tag: str) -> str:
    return (
        "<tr>"
        + "".join(f'<{tag} style="{_CELL}">{escape(cell)}</{tag}>' for cell in cells)
        + "</tr>"
    )


def _facts(comparison: Comparison) -> list[str]:
    found = comparison.figures
    missing = ", ".join(
        f"{part} {share:.1%} ({found.missing_reference[part]:.1%})"
        for part, share in found.missing.items()
    )
    return [
        f"Current: {found.products} of {comparison.population} products. "
        f"Reference: {comparison.reference.products} held-out products of bundle {comparison.bundle_id}.",
        f"Expected accuracy: {found.expected_accuracy:.1%} (reference {found.expected_accuracy_reference:.1%}, "
        f"low below {found.expected_accuracy_limit:.1%}).",
        f"Products without a part (in the reference): {missing}.",
        *(
            f"{name.replace('_', ' ').capitalize()}: {value}"
            for name, value in comparison.context.items()
        ),
    ]
