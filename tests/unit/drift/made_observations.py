"""Observations from a generator: many, at no cost, with a shift where one is asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from product_classifier.core.bundle import MANIFEST, REFERENCE_OBSERVATIONS, describe_files
from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.releases import publish_release
from product_classifier.core.workspace import Workspace
from product_classifier.drift.comparison import Comparison
from product_classifier.modeling.drift import Answered, build_reference
from product_classifier.modeling.observation import Observation
from product_classifier.modeling.observation_table import format_table

CODES = [10, 40, 2583]


def make_rows(
    count: int, seed: int, *, light: float = 1.0, confidence: float = 0.0, photos: bool = True
) -> list[Answered]:
    """Draws products; `light` scales their brightness, `confidence` is added."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        bright, sharp = rng.normal(150, 20) * light, rng.normal(10, 2) * light
        facts = Observation(
            text_length=int(rng.integers(10, 200)),
            unknown_token_rate=float(rng.beta(1, 20)),
            language=str(rng.choice(["fr", "en", "de"], p=[0.8, 0.15, 0.05])),
            brightness=bright if photos else None,
            sharpness=sharp if photos else None,
            aspect=1.0 if photos else None,
            has_title=True,
            has_description=bool(rng.random() < 0.65),
            has_photo=photos,
        )
        sure = min(1.0, max(0.0, float(rng.beta(8, 2)) + confidence))
        rows.append(Answered(facts, int(rng.choice(CODES)), sure))
    return rows


def make_comparison(current: Sequence[Answered], **values: object) -> Comparison:
    """Compares products with 600 that were drawn otherwise."""
    rows = make_rows(600, seed=1)
    known: dict[str, object] = {
        "kind": "batch",
        "subject": "the last batch prediction",
        "content_id": "c0ffee" * 10 + "0000",
        "reference": build_reference(rows, CODES),
        "reference_rows": rows,
        "current": current,
        "population": len(current),
        "context": {"dataset": "X.csv"},
    }
    return Comparison(**{**known, **values})  # type: ignore[arg-type]


def publish_referenced(workspace: Workspace, bundle: Path, products: int = 600) -> str:
    """Gives a made bundle a reference and publishes it; gives its id."""
    rows = make_rows(products, seed=1)
    (bundle / REFERENCE_OBSERVATIONS).write_text(format_table(rows))
    manifest = read_json(bundle / MANIFEST)
    manifest["drift"] = build_reference(rows, CODES).model_dump()
    manifest["files"] = {n: e.model_dump() for n, e in describe_files(bundle).items()}
    write_json_atomic(bundle / MANIFEST, manifest)
    return publish_release(workspace, bundle).release_id
