"""What was asked and answered since the start, as figures beside those of the bundle."""

import threading
import time
from bisect import bisect_right
from collections import Counter as Tally
from typing import Any

from product_classifier.modeling.predictor import Prediction

CONFIDENCE_EDGES = tuple(step / 10 for step in range(11))
# As the training catalogue's reference figures: lengths of title and description in characters.
_LENGTH_EDGES = (0, 1, 10, 20, 40, 60, 80, 120, 200, 400, 800, 1600, 3200, 10_000)


class _Bins:
    """A histogram with fixed edges; what lies beyond counts in the outermost bin."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) - 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        index = bisect_right(self.edges, value) - 1
        self.counts[min(max(index, 0), len(self.counts) - 1)] += 1
        self.total += value

    def figures(self) -> dict[str, Any]:
        count = sum(self.counts)
        mean = round(self.total / count, 4) if count else None
        return {"edges": list(self.edges), "counts": list(self.counts), "mean": mean}


class LiveStatistics:
    """Running totals of what was asked and answered since the start. Counts only: bounded, and no text is kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = time.time()
        self._codes: Tally[int] = Tally()
        self._decisions: Tally[str] = Tally()
        self._modalities: Tally[str] = Tally()
        self._photo_errors = 0
        self._confidence = _Bins(CONFIDENCE_EDGES)
        self._title_length = _Bins(_LENGTH_EDGES)
        self._description_length = _Bins(_LENGTH_EDGES)
        self._empty_descriptions = 0
        self._inputs = 0

    def add(self, prediction: Prediction) -> None:
        """Counts one answer."""
        with self._lock:
            self._modalities[prediction.modalities] += 1
            self._photo_errors += prediction.photo_error is not None
            if prediction.modalities == "nothing":
                return
            self._codes[prediction.code] += 1
            self._decisions[prediction.decision] += 1
            self._confidence.add(prediction.confidence)

    def add_input(self, title: str | None, description: str | None) -> None:
        """Counts how long the texts of one product are."""
        with self._lock:
            self._inputs += 1
            self._title_length.add(len(title or ""))
            self._description_length.add(len(description or ""))
            self._empty_descriptions += not (description or "").strip()

    def kpis(self) -> dict[str, Any]:
        """Gives the live counterpart of the bundle's KPIs."""
        with self._lock:
            answered = sum(self._decisions.values())
            auto = self._decisions["auto"]
            return {
                "since": self._since,
                "answered": answered,
                "decisions": dict(self._decisions),
                "auto_share": round(auto / answered, 4) if answered else None,
                "modalities": dict(self._modalities),
                "photo_errors": self._photo_errors,
                "confidence": self._confidence.figures(),
            }

    def feature_distribution(self) -> dict[str, Any]:
        """Gives the live counterpart of the bundle's reference figures."""
        with self._lock:
            inputs, codes = self._inputs, sum(self._codes.values())
            empty = self._empty_descriptions
            return {
                "since": self._since,
                "products": inputs,
                "title_length": {**self._title_length.figures(), "unit": "characters"},
                "description_length": {**self._description_length.figures(), "unit": "characters"},
                "empty_description_share": round(empty / inputs, 4) if inputs else None,
                "predicted_share": {
                    str(code): round(count / codes, 6)
                    for code, count in sorted(self._codes.items())
                },
                "confidence": self._confidence.figures(),
            }
