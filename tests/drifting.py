"""Observations made up for tests: products of a catalogue that is known exactly, so that drift and its absence are."""

from collections.abc import Sequence

import numpy as np

from product_classifier.core.bundle import Manifest
from product_classifier.modeling.drift import Answered, build_reference
from product_classifier.modeling.fusion import NOTHING
from product_classifier.modeling.observation import Observation
from product_classifier.modeling.predictor import Prediction, RankedCode
from product_classifier.serve.drift import DriftMonitor
from product_classifier.serve.live_model import Phases, Scored


def make_rows(
    count: int,
    seed: int,
    *,
    classes: int = 10,
    first_class: float | None = None,
    english: float = 0.1,
    light: float = 1.0,
    without_photo: float = 0.05,
    confidence: float = 0.0,
) -> list[Answered]:
    """Draws products; arguments say what is other than usual.

    Args:
        count: How many.
        seed: Of the draw.
        classes: Number of codes; shares fall as 1 / rank.
        first_class: Share of code 0, where it is not the usual one.
        english: Share of English titles.
        light: What brightness and sharpness are multiplied by.
        without_photo: Share of products.
        confidence: Added to every confidence.
    """
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, classes + 1)
    shares /= shares.sum()
    if first_class is not None:
        shares = np.array([first_class, *(shares[1:] / shares[1:].sum() * (1 - first_class))])
    rows = []
    for code in rng.choice(classes, size=count, p=shares):
        has_photo = rng.random() >= without_photo
        has_description = rng.random() >= 0.35
        length = int(rng.gamma(4, 15)) + (int(rng.gamma(1, 500)) if has_description else 0)
        bright, sharp = rng.beta(5, 2) * 255 * light, rng.gamma(3, 3) * light
        facts = Observation(
            text_length=length,
            unknown_token_rate=0.0 if rng.random() < 0.9 else float(rng.random() * 0.1),
            language="en" if rng.random() < english else "fr",
            brightness=bright if has_photo else None,
            sharpness=sharp if has_photo else None,
            aspect=1.0 if has_photo else None,
            has_title=True,
            has_description=has_description,
            has_photo=has_photo,
        )
        sure = float(np.clip(rng.beta(5, 1.2) + confidence, 0, 1))
        rows.append(Answered(facts, int(code), sure))
    return rows


def with_reference(manifest: Manifest, rows: Sequence[Answered]) -> Manifest:
    """The manifest with these rows as its reference."""
    return manifest.model_copy(update={"drift": build_reference(rows, range(10))})


def scored(row: Answered) -> Scored:
    """The answer in which a row was observed."""
    code, confidence = row.predicted_code or 0, row.confidence or 0.1
    modalities = NOTHING if row.predicted_code is None else "text"
    prediction = Prediction((RankedCode(code, confidence),), modalities, "review", 0.9)
    phases = Phases(0, 0, 0, 0, 0)
    return Scored(prediction, "", np.zeros((1, 1), np.float32), False, phases, row.facts)


def feed(monitor: DriftMonitor, rows: Sequence[Answered]) -> None:
    """Shows the monitor the answers."""
    for row in rows:
        monitor.add(scored(row))
