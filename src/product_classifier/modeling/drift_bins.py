"""Bins that a feature's values are sorted into: the reference makes them, windows and batches are counted in them.

A bin must not owe its size to luck: were every code that happens to be in the reference five times a bin of its own,
the lucky ones would seem to have become rare in every window.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from product_classifier.core.bundle import DriftFeature
from product_classifier.modeling.drift_chance import chance_table

MAX_BINS = 10
MIN_PER_BIN = 10  # reference products that a bin has at least, but the last one of rare categories
COMMON = 20  # a category that so many reference products have is a bin of its own


def describe_numbers(values: Sequence[float]) -> DriftFeature:
    """Sorts the reference's values into bins by size."""
    return _counted(DriftFeature(edges=bin_edges(values), counts=[], chance=[]), values)


def describe_categories(values: Sequence[str], known: Iterable[str]) -> DriftFeature | None:
    """Sorts the reference's values into bins: common ones alone, rare ones together with their neighbours.

    Args:
        values: Of the reference products.
        known: All values that are possible. One that no reference product has belongs to a bin too.

    Returns:
        The bins; None where all are in one.
    """
    categories = _group(Counter(values), sorted({*known, *values}))
    if len(set(categories.values())) < 2:
        return None
    return _counted(DriftFeature(categories=categories, counts=[], chance=[]), values)


def _group(tally: Counter[str], order: list[str]) -> dict[str, int]:
    common = [value for value in order if tally[value] >= COMMON]
    groups: list[list[str]] = [[value] for value in common]
    group: list[str] = []
    for value in order:
        if tally[value] >= COMMON:
            continue
        group.append(value)
        if sum(tally[member] for member in group) >= MIN_PER_BIN:
            groups.append(group)
            group = []
    if group and len(groups) > len(common):
        groups[-1] += group  # what is left over goes with the last of the rare ones
    elif group:
        groups.append(group)
    return {value: position for position, members in enumerate(groups) for value in members}


def _counted(bins: DriftFeature, values: Iterable[float | str]) -> DriftFeature:
    counts = count_bins(bins, values)
    return bins.model_copy(update={"counts": counts, "chance": chance_table(counts)})


def bin_edges(values: Sequence[float]) -> list[float]:
    """Cuts numbers into bins of about equal size, and gives a value that is very common a bin of its own.

    Without that, photos that all are square would share a bin with all that are narrower.
    """
    bins = min(MAX_BINS, max(2, len(values) // MIN_PER_BIN))
    numbers = np.asarray(values, dtype=np.float64)
    quantiles = np.quantile(numbers, np.arange(1, bins) / bins, method="inverted_cdf")
    distinct, counts = np.unique(numbers, return_counts=True)
    common = distinct[counts > len(numbers) / bins]
    below = np.nextafter(common[common > 0], -np.inf)  # nothing is below 0
    return sorted({float(edge) for edge in (*quantiles, *common, *below)})


def bin_of(bins: DriftFeature, value: float | str) -> int:
    """Gives the position of the bin that a value falls into; a category that nobody knew falls into the last one."""
    if bins.edges is not None:
        return bisect_left(bins.edges, float(value))
    position = (bins.categories or {}).get(str(value))
    return bins.size - 1 if position is None else position


def count_bins(bins: DriftFeature, values: Iterable[float | str]) -> list[int]:
    """Counts values per bin."""
    counts = [0] * bins.size
    for value in values:
        counts[bin_of(bins, value)] += 1
    return counts
