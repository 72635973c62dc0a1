"""Drift: how far what comes in is from what the model was tested on.

Training makes the reference from held-out products, so that tokens, confidences and classes are those of products that
the model did not learn. Serving compares a window of requests with it, the drift report a batch: both here.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from math import fsum, sqrt
from typing import Any

import numpy as np

from product_classifier.core.bundle import DriftFeature, DriftReference
from product_classifier.features.language import LANGUAGES
from product_classifier.modeling.drift_bins import count_bins, describe_categories, describe_numbers
from product_classifier.modeling.drift_chance import (
    MIN_PRODUCTS,
    deviations,
    limit_for,
    stability_index,
)
from product_classifier.modeling.observation import Observation

FEATURES = (
    "text_length",
    "unknown_token_rate",
    "language",
    "brightness",
    "sharpness",
    "aspect",
    "predicted_code",
    "confidence",
)
PARTS = ("title", "description", "photo")
LOW_ACCURACY_BY = 0.05

MIN_REFERENCE = 20  # a feature that fewer reference products have is not compared

Value = float | str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """One product as observed, and what the model said; without text and photo it says nothing."""

    facts: Observation
    predicted_code: int | None
    confidence: float | None


@dataclass(frozen=True)
class FeatureDrift:
    """One feature's figures: `psi` is 0 where fewer than `MIN_PRODUCTS` have it."""

    psi: float
    limit: float
    products: int

    @property
    def has_drifted(self) -> bool:
        """Whether the shift is large, and not chance."""
        return self.psi >= self.limit


@dataclass(frozen=True)
class DriftFigures:
    """What a window looks like against the reference.

    With fewer than `MIN_PRODUCTS` answers `expected_accuracy` is the reference's.
    """

    products: int
    features: dict[str, FeatureDrift]
    missing: dict[str, float]
    missing_reference: dict[str, float]
    answered: int
    expected_accuracy: float
    expected_accuracy_reference: float
    expected_accuracy_limit: float

    @property
    def drifted(self) -> list[str]:
        """Names the features that have drifted."""
        return [name for name, found in self.features.items() if found.has_drifted]

    @property
    def is_accuracy_low(self) -> bool:
        """Whether fewer answers will be right than in the test."""
        return self.expected_accuracy < self.expected_accuracy_limit

    def to_json(self) -> dict[str, Any]:
        """Gives the figures for an answer or a file."""
        return {**asdict(self), "drifted": self.drifted, "is_accuracy_low": self.is_accuracy_low}


@dataclass(frozen=True)
class Counted:
    """What was counted in a window: enough for its figures, and windows add up."""

    products: int
    counts: dict[str, list[int]]  # values per bin, for each feature of the reference
    missing: dict[str, int]  # products without each of `PARTS`
    answered: int
    confidence_sum: float  # of those answered


def add_up(windows: Sequence[Counted]) -> Counted:
    """Gives what was counted in several windows that were compared with the same reference."""
    return Counted(
        products=sum(one.products for one in windows),
        counts={
            name: [sum(bins) for bins in zip(*(one.counts[name] for one in windows), strict=True)]
            for name in windows[0].counts
        },
        missing={part: sum(one.missing.get(part, 0) for one in windows) for part in PARTS},
        answered=sum(one.answered for one in windows),
        confidence_sum=fsum(one.confidence_sum for one in windows),
    )


def features_of(answered: Answered) -> dict[str, Value]:
    """Gives the value of each of `FEATURES`; None where the product has none."""
    facts = answered.facts
    code = answered.predicted_code
    found: dict[str, Value] = {
        field.name: getattr(facts, field.name) for field in fields(facts) if field.name in FEATURES
    }
    found["predicted_code"] = None if code is None else str(code)
    found["confidence"] = answered.confidence
    return found


def is_missing(facts: Observation) -> dict[str, bool]:
    """Says which of `PARTS` a product does not have."""
    return {
        "title": not facts.has_title,
        "description": not facts.has_description,
        "photo": not facts.has_photo,
    }


def build_reference(rows: Sequence[Answered], codes: Iterable[int]) -> DriftReference:
    """Makes the reference from held-out products.

    Args:
        rows: What was observed, and answered.
        codes: All product codes that the model can answer.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("A drift reference needs at least one product. Received: none.")
    known = {"language": LANGUAGES, "predicted_code": tuple(str(code) for code in codes)}
    columns = [features_of(row) for row in rows]
    features = {}
    for name in FEATURES:
        values = [value for column in columns if (value := column[name]) is not None]
        if len(values) < MIN_REFERENCE:
            continue
        bins = (
            describe_categories([str(value) for value in values], known[name])
            if name in known
            else describe_numbers([float(value) for value in values])
        )
        if bins is not None:
            features[name] = bins
    confidences = [row.confidence for row in rows if row.confidence is not None]
    missing = [is_missing(row.facts) for row in rows]
    return DriftReference(
        products=len(rows),
        features=features,
        missing={part: sum(row[part] for row in missing) / len(rows) for part in PARTS},
        answered=len(confidences),
        confidence_mean=float(np.mean(confidences)) if confidences else 0.0,
        confidence_deviation=float(np.std(confidences)) if confidences else 0.0,
    )


def feature_drift(reference: DriftFeature, counts: Sequence[int]) -> FeatureDrift:
    """Compares a window's counts with the reference's."""
    products = sum(counts)
    limit = limit_for(tuple(reference.chance), products)
    if products < MIN_PRODUCTS:
        return FeatureDrift(0.0, limit, products)
    return FeatureDrift(stability_index(reference.counts, list(counts)), limit, products)


def accuracy_limit(reference: DriftReference, answered: int) -> float:
    """Gives the mean confidence below which a window is expected to be answered worse than the test.

    The mean of calibrated confidences is the accuracy to be expected without labels: "average confidence" in Guillory
    et al., "Predicting with confidence on unseen distributions", ICCV 2021. It holds as long as confidences stay
    calibrated; of what is unlike anything in training it promises too much, so it finds a loss late rather than early.
    """
    sizes = 1 / max(MIN_PRODUCTS, answered) + 1 / max(1, reference.answered)
    by_chance = deviations() * reference.confidence_deviation * sqrt(sizes)
    return max(0.0, reference.confidence_mean - max(LOW_ACCURACY_BY, by_chance))


def figures(reference: DriftReference, window: Counted) -> DriftFigures:
    """Puts the figures of a window together from what was counted in it."""
    products, answered = window.products, window.answered
    return DriftFigures(
        products=products,
        features={
            name: feature_drift(bins, window.counts[name])
            for name, bins in reference.features.items()
        },
        missing={
            part: window.missing.get(part, 0) / products if products else 0.0 for part in PARTS
        },
        missing_reference=dict(reference.missing),
        answered=answered,
        expected_accuracy=(
            window.confidence_sum / answered
            if answered >= MIN_PRODUCTS
            else reference.confidence_mean
        ),
        expected_accuracy_reference=reference.confidence_mean,
        expected_accuracy_limit=accuracy_limit(reference, answered),
    )


def measure(reference: DriftReference, rows: Sequence[Answered]) -> DriftFigures:
    """Compares some products with the reference."""
    columns = [features_of(row) for row in rows]
    counts = {
        name: count_bins(bins, [value for c in columns if (value := c[name]) is not None])
        for name, bins in reference.features.items()
    }
    missing = Counter(part for row in rows for part, gone in is_missing(row.facts).items() if gone)
    confidences = [row.confidence for row in rows if row.confidence is not None]
    window = Counted(len(rows), counts, missing, len(confidences), fsum(confidences))
    return figures(reference, window)
