"""Drift while serving: the last products against the live bundle's reference.

The window belongs to one bundle: a swap empties it. With several processes each has a window of its own, and the last
one to publish is shown.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from product_classifier.core.bundle import DriftReference, Manifest
from product_classifier.modeling.drift import (
    Answered,
    DriftFigures,
    features_of,
    figures,
    is_missing,
)
from product_classifier.modeling.drift_bins import bin_of
from product_classifier.modeling.fusion import NOTHING
from product_classifier.modeling.observation import Observation
from product_classifier.serve.drift_gauges import DriftGauges
from product_classifier.serve.live_model import Scored

RECENT_OBSERVATIONS = 10_000
# Several processes share files that a scrape reads past the others: each writes its figures itself, not at every
# product.
PUBLISH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Recent:
    """One answered product: when (seconds since the epoch), by which bundle, and what was observed."""

    at: float
    bundle_id: str
    row: Answered


@dataclass(frozen=True, slots=True)
class _Placed:
    """What has to be taken off the counts when a product leaves the window."""

    at: float
    bins: tuple[tuple[str, int], ...]  # feature and position of its bin
    missing: tuple[str, ...]
    confidence: float | None


class DriftMonitor:
    """Observes what is answered, from any thread."""

    def __init__(self, registry: CollectorRegistry, window: int) -> None:
        """Makes a monitor without a reference.

        Args:
            registry: Where its metrics go.
            window: DRIFT_WINDOW_PRODUCTS: how many of the last products are compared.
        """
        self.window = window
        self._shares_files = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._lock = threading.Lock()
        self._recent: deque[Recent] = deque(maxlen=RECENT_OBSERVATIONS)
        self._published_at = 0.0
        registry.register(_Refresher(self))  # before the gauges: collected before them
        self._gauges = DriftGauges(registry, self._shares_files)
        self._begin(None)

    def use(self, manifest: Manifest) -> None:
        """Compares with the reference of this bundle from now on; the window starts empty."""
        with self._lock:
            self._begin(manifest)
        self.publish()

    def add(self, scored: Scored, facts: Observation) -> None:
        """Takes one product into the window; it must be the live bundle's answer."""
        row = _answered(scored, facts)
        with self._lock:
            if self._manifest is None:
                return
            now = time.time()
            self._recent.append(Recent(now, self._manifest.content_id[:16], row))
            if self._reference is not None:
                self._enter(self._reference, row, now)
            is_due = self._shares_files and now - self._published_at >= PUBLISH_SECONDS
        if is_due:
            self.publish()

    def figures(self) -> DriftFigures | None:
        """Compares the window with the reference; None where the live bundle has no reference."""
        with self._lock:
            return self._figures()

    def publish(self) -> None:
        """Brings the gauges up to date: before every scrape, and now and then where processes share files."""
        with self._lock:
            self._published_at = time.time()
            self._gauges.show(self._figures())

    def status(self) -> dict[str, Any]:
        """Describes window and figures, for people."""
        with self._lock:
            found, manifest = self._figures(), self._manifest
            return {
                "bundle_id": manifest.content_id[:16] if manifest else None,
                "window_limit": self.window,
                "since": self._products[0].at if self._products else None,
                "figures": found.to_json() if found else None,
            }

    def recent(self, since: float | None = None, until: float | None = None) -> list[Recent]:
        """Gives the kept observations from `since` on and before `until`, oldest first."""
        with self._lock:
            kept = list(self._recent)
        return [
            one
            for one in kept
            if (since is None or one.at >= since) and (until is None or one.at < until)
        ]

    def _begin(self, manifest: Manifest | None) -> None:
        self._manifest = manifest
        self._reference = manifest.drift if manifest else None
        self._products: deque[_Placed] = deque()
        self._missing: Counter[str] = Counter()
        features = self._reference.features if self._reference else {}
        self._counts = {name: [0] * len(bins.counts) for name, bins in features.items()}

    def _enter(self, reference: DriftReference, row: Answered, now: float) -> None:
        values = features_of(row)
        bins = tuple(
            (name, bin_of(feature, value))
            for name, feature in reference.features.items()
            if (value := values.get(name)) is not None  # a later trainer may know more features
        )
        missing = tuple(part for part, gone in is_missing(row.facts).items() if gone)
        self._products.append(_Placed(now, bins, missing, row.confidence))
        self._count(self._products[-1], 1)
        if len(self._products) > self.window:
            self._count(self._products.popleft(), -1)

    def _count(self, placed: _Placed, step: int) -> None:
        for name, position in placed.bins:
            self._counts[name][position] += step
        for part in placed.missing:
            self._missing[part] += step

    def _figures(self) -> DriftFigures | None:
        if self._reference is None:
            return None
        confidences = [one.confidence for one in self._products if one.confidence is not None]
        return figures(
            self._reference, self._counts, self._missing, len(self._products), confidences
        )


class _Refresher(Collector):
    """Has no metrics; being asked for them brings those of the monitor up to date."""

    def __init__(self, monitor: DriftMonitor) -> None:
        self._monitor = monitor

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        self._monitor.publish()
        return iter(())


def _answered(scored: Scored, facts: Observation) -> Answered:
    prediction = scored.prediction
    if prediction.modalities == NOTHING:
        return Answered(facts, None, None)
    return Answered(facts, prediction.code, prediction.confidence)
