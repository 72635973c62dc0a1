"""Figures from labels and answers: pure functions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from product_classifier.modeling.calibration import calibration_error
from product_classifier.modeling.fusion import FloatArray

IntArray = NDArray[np.int64]


def evaluate_scores(scores: NDArray[np.floating], labels: IntArray) -> dict[str, Any]:
    """Judges class scores by rank alone.

    Args:
        scores: Shape `(N, K)`, higher is more likely.
        labels: Label indices, shape `(N,)`.

    Returns:
        accuracy, macro_f1, weighted_f1, top3_accuracy, n; the F1 means run over the classes that occur.
    """
    predicted = scores.argmax(axis=1)
    present = np.unique(labels)
    f1, support = precision_recall_fscore_support(
        labels, predicted, labels=present, zero_division=0
    )[2:]
    top3 = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "macro_f1": float(np.mean(f1)),
        "weighted_f1": float(np.average(f1, weights=support)),
        "top3_accuracy": float(np.mean((top3 == labels[:, None]).any(axis=1))),
        "n": len(labels),
    }


def evaluate_probabilities(
    probabilities: FloatArray,
    labels: IntArray,
    modalities: NDArray[np.str_],
    auto_from: dict[str, float],
) -> dict[str, Any]:
    """Judges calibrated probabilities.

    Args:
        probabilities: Shape `(N, K)`.
        labels: Label indices, shape `(N,)`.
        modalities: What each answer was judged by, shape `(N,)`.
        auto_from: Threshold for each modality name.

    Returns:
        What `evaluate_scores` gives, and calibration_error, coverage (share of answers that pass without
        review) and auto_precision (share of right ones among those; None where none passes).
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    threshold = np.array([auto_from.get(str(name), np.inf) for name in modalities])
    passed = confidence >= threshold
    return {
        **evaluate_scores(probabilities, labels),
        "calibration_error": calibration_error(confidence, correct),
        "coverage": float(np.mean(passed)),
        "auto_precision": float(np.mean(correct[passed])) if passed.any() else None,
    }


def per_class_report(
    predicted: IntArray, labels: IntArray, codes: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    """Gives precision, recall, F1 and support of each class, keyed by product code as text."""
    columns = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(codes)), zero_division=0
    )
    return {
        str(code): {
            name: float(column[index])
            for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True)
        }
        for index, code in enumerate(codes)
    }


def confusion_matrix(predicted: IntArray, labels: IntArray, classes: int) -> IntArray:
    """Counts answers: row is the true class, column the answer; shape `(K, K)`."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix
