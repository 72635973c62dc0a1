"""Drift while serving: the last products against the live bundle's reference.

The window belongs to one bundle: a swap empties it. With several processes each has a window of its own, and the
figures are those of all together.
"""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from math import ldexp
from typing import Any

from product_classifier.core.bundle import DriftReference, Manifest
from product_classifier.modeling.drift import (
    Answered,
    Counted,
    DriftFigures,
    features_of,
    figures,
    is_missing,
)
from product_classifier.modeling.drift_bins import bin_of
from product_classifier.modeling.fusion import NOTHING
from product_classifier.serve.drift_gauges import DriftGauges
from product_classifier.serve.drift_windows import SharedWindows
from product_classifier.serve.live_model import Scored
from product_classifier.web.metric_registry import MetricRegistry

RECENT_OBSERVATIONS = 10_000
# Confidences are added up as whole multiples of 2^-64: no rounding piles up, however many come and go.
_FRACTION_BITS = 64


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
    confidence: int | None  # times 2^64


class DriftMonitor:
    """Observes what is answered, from any thread."""

    def __init__(self, registry: MetricRegistry, window: int) -> None:
        """Makes a monitor without a reference.

        Args:
            registry: Where its metrics go.
            window: DRIFT_WINDOW_PRODUCTS: how many of the last products are compared.
        """
        self.window = window
        folder = registry.folder
        self._shared = SharedWindows(folder) if folder is not None else None
        self._lock = threading.Lock()
        self._recent: deque[Recent] = deque(maxlen=RECENT_OBSERVATIONS)
        self._gauges = DriftGauges(registry, folder is not None)
        self._begin(None)
        registry.before_scrape(self.publish)

    def use(self, manifest: Manifest) -> None:
        """Compares with the reference of this bundle from now on; the window starts empty."""
        with self._lock:
            self._begin(manifest)
        self.publish()

    def add(self, scored: Scored) -> None:
        """Takes one product into the window; it must be the live bundle's answer."""
        row = _answered(scored)
        with self._lock:
            if self._manifest is None:
                return
            now = time.time()
            self._recent.append(Recent(now, self._manifest.content_id[:16], row))
            if self._reference is not None:
                self._enter(self._reference, row, now)

    def figures(self) -> DriftFigures | None:
        """Compares the windows with the reference; None where the live bundle has no reference."""
        with self._lock:
            return self._figures()

    def publish(self) -> None:
        """Brings the gauges up to date, and tells other processes of this one's window."""
        with self._lock:
            if self._shared is not None and self._manifest is not None:
                self._shared.tell(self._manifest.content_id, self._counted())
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
        self._answered = self._confidence = 0
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
        sure = None if row.confidence is None else int(ldexp(row.confidence, _FRACTION_BITS))
        self._products.append(_Placed(now, bins, missing, sure))
        self._count(self._products[-1], 1)
        if len(self._products) > self.window:
            self._count(self._products.popleft(), -1)

    def _count(self, placed: _Placed, step: int) -> None:
        for name, position in placed.bins:
            self._counts[name][position] += step
        for part in placed.missing:
            self._missing[part] += step
        if placed.confidence is not None:
            self._answered += step
            self._confidence += step * placed.confidence

    def _figures(self) -> DriftFigures | None:
        if self._reference is None or self._manifest is None:
            return None
        window = self._counted()
        if self._shared is not None:
            window = self._shared.add_others(self._manifest.content_id, window)
        return figures(self._reference, window)

    def _counted(self) -> Counted:
        return Counted(
            products=len(self._products),
            counts=self._counts,
            missing=self._missing,
            answered=self._answered,
            confidence_sum=self._confidence / (1 << _FRACTION_BITS),
        )


def _answered(scored: Scored) -> Answered:
    prediction, facts = scored.prediction, scored.observation
    if prediction.modalities == NOTHING:
        return Answered(facts, None, None)
    return Answered(facts, prediction.code, prediction.confidence)
