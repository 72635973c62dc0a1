"""What the model does, counted: for Prometheus, and as live figures beside those of the bundle."""

import threading
import time
from bisect import bisect_right
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from product_classifier.modeling.predictor import Prediction
from product_classifier.serve.live_model import Scored

PREFIX = "product_classifier"
PHASES = ("wait", "decode", "photo", "text")
SWAP_OUTCOMES = ("swapped", "refused")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CONFIDENCE_EDGES = tuple(step / 10 for step in range(11))
# As the training catalogue's reference figures: lengths of title and description in characters.
_LENGTH_EDGES = (0, 1, 10, 20, 40, 60, 80, 120, 200, 400, 800, 1600, 3200, 10_000)


class ModelMetrics:
    """The model's metrics on one registry; every series that can be named beforehand exists from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.live = LiveStatistics()
        self.predictions = Counter(
            f"{PREFIX}_predictions_total",
            "Products answered, by predicted code and decision",
            ("code", "decision"),
            registry=registry,
        )
        self.durations = Histogram(
            f"{PREFIX}_inference_duration_seconds",
            "Seconds of one product in each phase",
            ("phase",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.confidence = Histogram(
            f"{PREFIX}_prediction_confidence",
            "Calibrated confidence of the best code",
            ("modalities",),
            buckets=_CONFIDENCE_EDGES[1:],
            registry=registry,
        )
        self.queue_depth = Gauge(
            f"{PREFIX}_inference_queue_depth",
            "Products that wait for the networks",
            registry=registry,
        )
        self.rejections = Counter(
            f"{PREFIX}_inference_rejections_total",
            "Products that found no room",
            ("reason",),
            registry=registry,
        )
        self.swaps = Counter(
            f"{PREFIX}_bundle_swaps_total",
            "New bundles, by what became of them",
            ("outcome",),
            registry=registry,
        )
        self.photo_errors = Counter(
            f"{PREFIX}_photo_errors_total", "Photos that could not be used", registry=registry
        )
        self.loaded_at = Gauge(
            f"{PREFIX}_bundle_loaded_timestamp_seconds",
            "When the live bundle was loaded, seconds since the epoch; 0 without one",
            registry=registry,
        )
        for phase in PHASES:
            self.durations.labels(phase)
        for outcome in SWAP_OUTCOMES:
            self.swaps.labels(outcome)
        self.rejections.labels("queue_full")

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Reads the queue's depth whenever the metrics are asked for."""
        self.queue_depth.set_function(depth)

    def observe(self, scored: Scored) -> None:
        """Counts one answer."""
        prediction = scored.prediction
        for phase in PHASES:
            self.durations.labels(phase).observe(getattr(scored.phases, phase))
        if prediction.photo_error is not None:
            self.photo_errors.inc()
        if prediction.modalities != "nothing":
            self.predictions.labels(str(prediction.code), prediction.decision).inc()
            self.confidence.labels(prediction.modalities).observe(prediction.confidence)
        self.live.add(prediction)


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
        self._confidence = _Bins(_CONFIDENCE_EDGES)
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
