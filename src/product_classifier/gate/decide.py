"""Holding a candidate against the absolute floors of `params.yaml`."""

from dataclasses import dataclass
from typing import Any

from product_classifier.core.bundle import Manifest
from product_classifier.core.params import GateParams


@dataclass(frozen=True)
class Floor:
    """One limit and how the candidate stands to it."""

    metric: str
    value: float | None  # None: the manifest does not tell it
    limit: float
    at_least: bool  # else: at most

    @property
    def passed(self) -> bool:
        """Whether the limit holds; a missing or undefined value never passes."""
        if self.value is None:
            return False
        # NaN compares false both ways, so it fails.
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def as_text(self) -> str:
        """Says it in one line, as "accuracy 0.912, at least 0.600: pass"."""
        value = "missing" if self.value is None else f"{self.value:.4f}"
        bound = "at least" if self.at_least else "at most"
        verdict = "pass" if self.passed else "FAIL"
        return f"{self.metric} {value}, {bound} {self.limit:.4f}: {verdict}"

    def as_json(self) -> dict[str, Any]:
        """What the report says about it."""
        value = self.value if self.value is not None and self.value == self.value else None
        return {
            "metric": self.metric,
            "value": value,
            "limit": self.limit,
            "bound": "min" if self.at_least else "max",
            "passed": self.passed,
        }


def measure_floors(manifest: Manifest, params: GateParams) -> list[Floor]:
    """Compares the fused model's metrics on the test split with the floors."""
    fusion = manifest.metrics.get("fusion", {})

    def floor(metric: str, limit: float, *, at_least: bool) -> Floor:
        value = fusion.get(metric)
        number = float(value) if isinstance(value, int | float) else None
        return Floor(metric, number, limit, at_least)

    return [
        floor("accuracy", params.min_accuracy, at_least=True),
        floor("macro_f1", params.min_macro_f1, at_least=True),
        floor("calibration_error", params.max_calibration_error, at_least=False),
    ]
