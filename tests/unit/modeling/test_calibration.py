import numpy as np
import pytest

from product_classifier.modeling.calibration import (
    MIN_SUPPORT,
    NEVER,
    calibration_error,
    threshold_for_precision,
)


def test_calibration_error_is_the_mean_gap() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 30)
    correct = np.array([True] * 8 + [False] * 2 + [True] * 18 + [False] * 12)
    expected = (10 * abs(0.95 - 0.8) + 30 * abs(0.55 - 0.6)) / 40
    assert calibration_error(confidence, correct, bins=10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("confidence", "correct", "error"),
    [([], [], 0.0), ([1.0], [True], 0.0), ([1.0], [False], 1.0), ([0.0], [False], 0.0), ([0.0], [True], 1.0)],
)  # fmt: skip
def test_calibration_error_at_the_edges(
    confidence: list[float], correct: list[bool], error: float
) -> None:
    assert calibration_error(np.array(confidence), np.array(correct, dtype=bool)) == error


def test_gaps_of_both_signs_do_not_cancel_between_bins() -> None:
    confidence, correct = np.array([0.9, 0.1]), np.array([False, True])
    assert calibration_error(confidence, correct) == pytest.approx(0.9)


def answers(*runs: tuple[float, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Builds answers from runs of (confidence, right ones, wrong ones), shuffled."""
    confidence = np.concatenate([np.full(right + wrong, level) for level, right, wrong in runs])
    correct = np.concatenate([np.arange(right + wrong) < right for _, right, wrong in runs])
    order = np.random.default_rng(0).permutation(len(confidence))
    return confidence[order], correct[order]


def test_the_lowest_threshold_that_is_good_enough_is_taken() -> None:
    found = threshold_for_precision(*answers((0.9, 30, 0), (0.8, 20, 0), (0.7, 0, 10)), 0.9)
    assert found == 0.8


def test_a_dip_in_precision_is_passed_over() -> None:
    """What counts is the share of right answers among all that pass."""
    runs = ((0.9, 20, 10), (0.8, 70, 0))
    assert threshold_for_precision(*answers(*runs), 0.9) == 0.8
    assert threshold_for_precision(*answers(*runs), 0.91) == NEVER


def test_equal_confidences_pass_together() -> None:
    assert threshold_for_precision(*answers((0.9, 30, 30)), 0.6) == NEVER
    assert threshold_for_precision(*answers((0.9, 30, 0), (0.8, 30, 30)), 0.8) == 0.9


def test_a_precision_exactly_on_target_is_enough() -> None:
    assert threshold_for_precision(*answers((0.9, 49, 1)), 0.98) == 0.9


def test_too_few_answers_say_nothing() -> None:
    assert threshold_for_precision(*answers((0.9, MIN_SUPPORT - 1, 0)), 0.5) == NEVER
    assert threshold_for_precision(*answers((0.9, MIN_SUPPORT, 0)), 0.5) == 0.9
    assert threshold_for_precision(np.array([]), np.array([], dtype=bool), 0.5) == NEVER


def test_never_is_above_every_confidence() -> None:
    assert threshold_for_precision(*answers((1.0, 0, 30)), 0.5) == NEVER
    assert NEVER > 1.0
