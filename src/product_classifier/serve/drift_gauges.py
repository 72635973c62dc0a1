"""The gauges of drift. Each exists from the start, but those of a feature that the reference does not have."""

from math import nan

from prometheus_client import CollectorRegistry, Gauge

from product_classifier.modeling.drift import FEATURES, PARTS, DriftFigures
from product_classifier.modeling.drift_chance import LARGE_SHIFT

_PREFIX = "product_classifier"


class DriftGauges:
    """Shows the figures of one window."""

    def __init__(self, registry: CollectorRegistry, shares_files: bool) -> None:
        """Makes the gauges.

        Args:
            registry: Where they go.
            shares_files: Whether several processes share their metrics: there a series can't be taken away.
        """
        self._shares_files = shares_files

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(
                f"{_PREFIX}_{name}",
                text,
                labels,
                registry=registry,
                multiprocess_mode="livemostrecent",
            )

        self._psi = gauge(
            "drift_psi",
            "Population stability index of the window against the bundle's reference; 0 while it is too small",
            "feature",
        )
        self._limit = gauge(
            "drift_psi_limit", "Index from which on it is drift: large, and not chance", "feature"
        )
        self._products = gauge("drift_window_products", "Products in the window", "feature")
        self._missing = gauge("drift_missing_ratio", "Products of the window without it", "part")
        self._missing_reference = gauge(
            "drift_missing_reference_ratio", "Products of the reference without it", "part"
        )
        self._accuracy = gauge(
            "expected_accuracy_ratio",
            "Mean calibrated confidence of the window; the reference's while it is too small",
        )
        self._accuracy_reference = gauge(
            "expected_accuracy_reference_ratio", "Mean calibrated confidence on the test split"
        )
        self._accuracy_limit = gauge(
            "expected_accuracy_limit_ratio", "Below this it is low: by 0.05, and not by chance"
        )

    def show(self, found: DriftFigures | None) -> None:
        """Sets every gauge; None stands for a bundle without a reference."""
        for name in FEATURES:
            feature = found.features.get(name) if found else None
            self._products.labels(name).set(feature.products if feature else 0)
            if feature is not None:
                self._psi.labels(name).set(feature.psi)
                self._limit.labels(name).set(feature.limit)
            else:
                self._forget(name)
        for part in PARTS:
            self._missing.labels(part).set(found.missing[part] if found else 0.0)
            self._missing_reference.labels(part).set(found.missing_reference[part] if found else 0)
        # Not 0 %: nothing is known, no comparison with it is true, and `min` over instances passes it over.
        self._accuracy.set(found.expected_accuracy if found else nan)
        self._accuracy_reference.set(found.expected_accuracy_reference if found else nan)
        self._accuracy_limit.set(found.expected_accuracy_limit if found else nan)

    def _forget(self, feature: str) -> None:
        if self._shares_files:
            self._psi.labels(feature).set(0.0)
            self._limit.labels(feature).set(LARGE_SHIFT)
            return
        for gauge in (self._psi, self._limit):
            gauge.remove(feature)
