import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from product_classifier.train.evaluate import (
    confusion_matrix,
    evaluate_probabilities,
    evaluate_scores,
    per_class_report,
)


def test_figures_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, 300)
    scores = generator.normal(size=(300, 6))
    scores[np.arange(300), labels] += 1.5
    predicted = scores.argmax(axis=1)
    found = evaluate_scores(scores, labels)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["weighted_f1"] == pytest.approx(f1_score(labels, predicted, average="weighted"))
    top3 = np.mean(
        [label in row for label, row in zip(labels, np.argsort(-scores)[:, :3], strict=True)]
    )
    assert found["top3_accuracy"] == pytest.approx(top3)
    assert found["n"] == 300


def test_classes_that_do_not_occur_do_not_lower_the_mean() -> None:
    scores = np.eye(10)[[0, 0, 1, 1]]
    assert evaluate_scores(scores, np.array([0, 0, 1, 1]))["macro_f1"] == 1.0
    # An answer that occurs in no row is an error of the class it was given to, not a class of its own.
    missed = evaluate_scores(np.eye(10)[[0, 7, 1, 1]], np.array([0, 0, 1, 1]))
    assert missed["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_minus_infinity_is_a_score_too() -> None:
    scores = np.array([[-np.inf, 1.0, 0.0], [-np.inf, 0.0, 1.0]])
    assert evaluate_scores(scores, np.array([1, 0]))["accuracy"] == 0.5


def test_each_answer_is_judged_by_the_threshold_of_its_modality() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.95, 0.05]])
    found = evaluate_probabilities(
        probabilities,
        np.array([0, 0, 1, 1]),
        np.array(["text", "image", "text+image", "nothing"]),
        {"text": 0.9, "image": 0.91, "text+image": 0.5},
    )
    assert found["coverage"] == 0.5
    assert found["auto_precision"] == 0.5
    assert found["accuracy"] == 0.5


def test_without_passing_answers_there_is_no_precision() -> None:
    found = evaluate_probabilities(
        np.array([[0.9, 0.1]]), np.array([0]), np.array(["text"]), {"text": 1.01}
    )
    assert found["coverage"] == 0.0
    assert found["auto_precision"] is None


def test_the_confusion_matrix_has_true_classes_as_rows() -> None:
    found = confusion_matrix(np.array([1, 1, 0, 2]), np.array([0, 0, 0, 2]), 4)
    assert found.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_the_report_names_product_codes() -> None:
    found = per_class_report(np.array([0, 1, 1]), np.array([0, 0, 1]), (10, 40, 50))
    assert set(found) == {"10", "40", "50"}
    assert found["10"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2.0,
    }
    assert found["50"]["support"] == 0.0
