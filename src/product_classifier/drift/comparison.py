"""What is compared with what, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from product_classifier.core.bundle import DriftReference
from product_classifier.core.errors import NothingToDo
from product_classifier.modeling.drift import (
    FEATURES,
    Answered,
    DriftFigures,
    Value,
    features_of,
    measure,
)
from product_classifier.modeling.drift_chance import MIN_PRODUCTS

SCHEMA = 1
Columns = Mapping[str, Sequence[Value]]  # feature → a value per product, None where it has none


@dataclass(frozen=True)
class Comparison:
    """Products of now against the reference of the bundle that answered them.

    `kind` is `batch` or `window`, `subject` says which in words; `population` counts the products that `current` was
    drawn from. `context` is what else tells the one from another of its kind: a file's hash, a span of time.
    """

    kind: str
    subject: str
    content_id: str
    reference: DriftReference
    reference_rows: Sequence[Answered]
    current: Sequence[Answered]
    population: int
    context: Mapping[str, str]

    @property
    def bundle_id(self) -> str:
        """Short name of the bundle, as releases are called."""
        return self.content_id[:16]

    @cached_property
    def figures(self) -> DriftFigures:
        """The figures, by the same arithmetic as in `serve`."""
        return measure(self.reference, self.current)

    @property
    def verdict(self) -> str:
        """Says in one sentence what came of it."""
        drifted = self.figures.drifted
        low = self.figures.is_accuracy_low
        if self.figures.products < MIN_PRODUCTS:
            return f"Fewer than {MIN_PRODUCTS} products: too few to tell drift from chance."
        if not drifted and not low:
            return "No drift: every index is below its limit."
        parts = [f"Drift of {_listed(drifted)}."] if drifted else []
        if low:
            parts.append("The expected accuracy is low.")
        return " ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Gives the summary for a file."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "subject": self.subject,
            "bundle_id": self.bundle_id,
            "content_id": self.content_id,
            "context": dict(self.context),
            "population": self.population,
            "reference_products": self.reference.products,
            "verdict": self.verdict,
            **self.figures.to_json(),
        }

    def tags(self) -> dict[str, str]:
        """Gives what is shown of it at the model's run in MLflow."""
        found = self.figures
        values = {
            "verdict": self.verdict,
            "features": ", ".join(found.drifted) or "none",
            "products": str(found.products),
            "expected_accuracy": f"{found.expected_accuracy:.4f}",
            **self.context,
        }
        return {f"drift.{self.kind}.{name}": value for name, value in values.items()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def to_columns(rows: Sequence[Answered]) -> Columns:
    """Turns products into a column per feature."""
    found = [features_of(row) for row in rows]
    return {name: [one[name] for one in found] for name in FEATURES}


def check_not_empty(rows: Sequence[object], subject: str) -> None:
    """Makes sure that there is something to compare.

    Raises:
        NothingToDo: there is no product.
    """
    if not rows:
        raise NothingToDo(f"There is no product in {subject}: no drift report.")
