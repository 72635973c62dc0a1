"""What the model does, counted for Prometheus."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from product_classifier.modeling.fusion import BOTH, IMAGE, NOTHING, TEXT
from product_classifier.modeling.predictor import AUTO, REVIEW
from product_classifier.serve.live_model import LiveModel, Scored
from product_classifier.serve.live_statistics import CONFIDENCE_EDGES, LiveStatistics
from product_classifier.web.metric_registry import MetricRegistry

PREFIX = "product_classifier"
PHASES = ("wait", "decode", "text", "image", "fusion")
SWAP_OUTCOMES = ("swapped", "refused")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ModelMetrics:
    """The model's metrics on one registry; every series that can be named beforehand exists from the start."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.live = LiveStatistics()
        self._registry = registry
        self._add_predictions(registry)
        self._add_queue(registry)
        self._add_bundle(registry)

    def _add_predictions(self, registry: MetricRegistry) -> None:
        self.predictions = Counter(
            f"{PREFIX}_predictions_total",
            "Products answered, by predicted code and decision",
            ("code", "decision"),
            registry=registry,
        )
        confidence = Histogram(
            f"{PREFIX}_prediction_confidence",
            "Calibrated confidence of the best code",
            ("modalities",),
            buckets=CONFIDENCE_EDGES[1:],
            registry=registry,
        )
        durations = Histogram(
            f"{PREFIX}_inference_duration_seconds",
            "Seconds of one product in each phase",
            ("phase",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._photo_errors = Counter(
            f"{PREFIX}_photo_errors_total", "Photos that could not be used", registry=registry
        )
        # Kept, since looking a series up costs more than counting in it.
        self._confidence = {name: confidence.labels(name) for name in (BOTH, TEXT, IMAGE)}
        self._durations = {phase: durations.labels(phase) for phase in PHASES}

    def _add_queue(self, registry: MetricRegistry) -> None:
        self._queue_depth = Gauge(
            f"{PREFIX}_inference_queue_depth",
            "Products that wait for the networks",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._queue_limit = Gauge(
            f"{PREFIX}_inference_queue_limit",
            "Products that may wait",
            multiprocess_mode="livesum",
            registry=registry,
        )
        rejections = Counter(
            f"{PREFIX}_inference_rejections_total",
            "Products that found no room",
            ("reason",),
            registry=registry,
        )
        self._queue_full = rejections.labels("queue_full")

    def _add_bundle(self, registry: MetricRegistry) -> None:
        self._bundle = Gauge(
            f"{PREFIX}_bundle_info",
            "Always 1, for the live bundle",
            ("bundle_id", "precision", "commit"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._shown: Gauge | None = None
        self._loaded_at = Gauge(
            f"{PREFIX}_bundle_loaded_timestamp_seconds",
            "When the live bundle was loaded, seconds since the epoch; 0 without one",
            multiprocess_mode="livemax",
            registry=registry,
        )
        swaps = Counter(
            f"{PREFIX}_bundle_swaps_total",
            "New bundles, by what became of them",
            ("outcome",),
            registry=registry,
        )
        self.swaps = {outcome: swaps.labels(outcome) for outcome in SWAP_OUTCOMES}
        self.load_failures = Counter(
            f"{PREFIX}_bundle_load_failures_total",
            "Bundles that could not be loaded, at start or later",
            registry=registry,
        )

        self.refused = Gauge(
            f"{PREFIX}_bundle_refused",
            "1 while the bundle that should be live could not be loaded",
            multiprocess_mode="livemax",
            registry=registry,
        )

    def watch_queue(self, depth: Callable[[], int], limit: int) -> None:
        """Reads the queue's depth whenever the metrics are asked for; `limit` is how deep it may be."""
        self._registry.watch(self._queue_depth, depth)
        self._queue_limit.set(limit)

    def watch_redis(self, fallbacks: dict[str, Callable[[], bool]]) -> None:
        """Shows for each use of Redis whether it does without, although Redis is set."""
        active = Gauge(
            f"{PREFIX}_redis_fallback_active",
            "1 while Redis is set but away",
            ("use",),
            multiprocess_mode="livemax",
            registry=self._registry,
        )
        for use, read in fallbacks.items():
            self._registry.watch(active.labels(use), read)

    def use(self, model: LiveModel) -> None:
        """Names the live bundle, and makes the series of what it can answer."""
        manifest = model.manifest
        if self._shown is not None:
            self._shown.set(0)  # the registry no longer shows it
        self._shown = self._bundle.labels(
            model.bundle_id, model.precision, manifest.git_commit or "unknown"
        )
        self._shown.set(1)
        self._loaded_at.set(model.loaded_at)
        for code in manifest.labels:
            for decision in (AUTO, REVIEW):
                self.predictions.labels(str(code), decision)

    def count_swap(self, outcome: str) -> None:
        """Counts a new bundle, `swapped` or `refused`."""
        self.swaps[outcome].inc()

    def count_load_failure(self) -> None:
        """Counts a try to load a bundle that failed; until one succeeds, another should be live than is."""
        self.load_failures.inc()
        self.refused.set(1)

    def note_sound_bundle(self) -> None:
        """Notes that the bundle that should be live is."""
        self.refused.set(0)

    def count_rejections(self, products: int) -> None:
        """Counts products that found no room in the queue."""
        self._queue_full.inc(products)

    def observe(self, scored: Scored) -> None:
        """Counts one answer."""
        prediction = scored.prediction
        for phase, durations in self._durations.items():
            durations.observe(getattr(scored.phases, phase))
        if prediction.photo_error is not None:
            self._photo_errors.inc()
        if prediction.modalities != NOTHING:
            self.predictions.labels(str(prediction.code), prediction.decision).inc()
            self._confidence[prediction.modalities].observe(prediction.confidence)
        self.live.add(prediction)
