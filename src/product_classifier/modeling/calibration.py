"""Confidence that means what it says: temperature, calibration error, and the threshold for a target precision."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

NEVER = 1.01  # above every confidence: no answer passes without review
MIN_SUPPORT = 20  # answers below which a share says nothing


def calibration_error(confidence: FloatArray, correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over equal-width bins.

    Args:
        confidence: In [0, 1], shape `(N,)`.
        correct: Shape `(N,)`.
        bins: How many.

    Returns:
        In [0, 1]; 0 for no rows.
    """
    if not len(confidence):
        return 0.0
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[index == b].mean()) - float(correct[index == b].mean()))
        * float((index == b).sum())
        for b in range(bins)
        if (index == b).any()
    ]
    return sum(gaps) / len(confidence)


def threshold_for_precision(
    confidence: FloatArray, correct: NDArray[np.bool_], target: float
) -> float:
    """Finds the lowest confidence from which on answers are right often enough.

    Args:
        confidence: In [0, 1], shape `(N,)`.
        correct: Shape `(N,)`.
        target: Wanted share of right answers among those at or above the threshold.

    Returns:
        The threshold, or `NEVER` where no threshold with `MIN_SUPPORT` answers reaches the target.
    """
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    precision = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    # Equal confidences pass together: only the last of each run is a possible threshold.
    last_of_run = np.append(sorted_confidence[1:] != sorted_confidence[:-1], True)
    good = last_of_run & (precision >= target) & (np.arange(1, len(order) + 1) >= MIN_SUPPORT)
    return float(sorted_confidence[good][-1]) if good.any() else NEVER
