"""Statistics of the labelled products: what drift detection compares new products with."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from product_classifier.core.catalogue import Product
from product_classifier.features.language import detect_language

SCHEMA = 1
_LANGUAGE_ROWS = 2000
_OTHER_BELOW = 0.005
_LENGTH_EDGES = (0, 1, 10, 20, 40, 60, 80, 120, 200, 400, 800, 1600, 3200, 10_000)
_BRIGHTNESS_EDGES = tuple(range(0, 257, 16))
_QUANTILES = (0.05, 0.25, 0.50, 0.75, 0.95)


def _distribution(values: Iterable[float], edges: Sequence[float], unit: str) -> dict[str, Any]:
    """Describes numbers by a histogram, whose last bin has no end, and by quantiles."""
    numbers = np.asarray(list(values), dtype=np.float64)
    counts, _ = np.histogram(
        np.clip(numbers, edges[0], np.nextafter(edges[-1], edges[0])), bins=edges
    )
    quantiles = np.quantile(numbers, _QUANTILES) if numbers.size else np.zeros(len(_QUANTILES))
    return {
        "unit": unit,
        "edges": list(edges),
        "counts": counts.tolist(),
        "mean": round(float(numbers.mean()), 3) if numbers.size else 0.0,
        "quantiles": {
            f"{q:.2f}": round(float(value), 3)
            for q, value in zip(_QUANTILES, quantiles, strict=True)
        },
    }


def language_shares(texts: Sequence[str]) -> dict[str, float]:
    """Estimates which share of texts is in which language; rare ones are `other`."""
    found = Counter(detect_language(text) for text in texts if text.strip())
    total = sum(found.values()) or 1
    shares = {language: count / total for language, count in sorted(found.items())}
    kept = {
        language: round(share, 4) for language, share in shares.items() if share >= _OTHER_BELOW
    }
    return {**kept, "other": round(1 - sum(kept.values()), 4) if found else 0.0}


def _language_sample(products: Sequence[Product]) -> list[str]:
    """Takes the texts of at most `_LANGUAGE_ROWS` products: always the same ones, by hash of id."""
    chosen = sorted(
        products, key=lambda product: hashlib.sha256(str(product.product_id).encode()).digest()
    )
    return [f"{product.title} {product.description}" for product in chosen[:_LANGUAGE_ROWS]]


def reference_statistics(
    products: Sequence[Product], codes: Iterable[int], brightness: Sequence[float]
) -> dict[str, Any]:
    """Describes the labelled products as drift detection needs them.

    Args:
        products: Labelled products.
        codes: Product code of each.
        brightness: Mean luma of each good photo of theirs, 0 to 255.

    Returns:
        Content of `reference_statistics.json`. Lengths are characters as published, uncleaned.
        Training adds the rate of unknown tokens, for it owns the tokenizer.
    """
    total = len(products)
    sample = _language_sample(products)
    return {
        "schema": SCHEMA,
        "products": total,
        "title_length": _distribution(
            (len(p.title) for p in products), _LENGTH_EDGES, "characters"
        ),
        "description_length": _distribution(
            (len(p.description) for p in products), _LENGTH_EDGES, "characters"
        ),
        "empty_description_share": round(
            sum(not p.description.strip() for p in products) / total, 6
        ),
        "language_share": {"products": len(sample), "shares": language_shares(sample)},
        "brightness": _distribution(brightness, _BRIGHTNESS_EDGES, "mean luma, 0 to 255"),
        "photo_missing_share": round(1 - len(brightness) / total, 6),
        "class_prior": {
            str(code): round(count / total, 6) for code, count in sorted(Counter(codes).items())
        },
    }
