"""One product, one answer: training's evaluation, batch prediction and `Predictor` agree."""

from pathlib import Path

import numpy as np
import pytest

from product_classifier.core.catalogue import load_labels
from product_classifier.core.files import read_json
from product_classifier.core.workspace import LABELS_FILE, Workspace
from product_classifier.modeling.predictor import Prediction, Predictor, ProductInput

from .evaluated import TOLERANCE, Evaluated


@pytest.fixture(scope="module")
def answers(trained_workspace: Workspace, evaluated: Evaluated) -> list[Prediction]:
    """What serving says about them, all at once."""
    inputs = [
        ProductInput(product.title, product.description, photo)
        for product, photo in zip(evaluated.products, evaluated.photos, strict=True)
    ]
    return Predictor.load(trained_workspace.candidate, "LATENCY").predict(inputs)


def test_split_holds_products_with_and_without_parts(evaluated: Evaluated) -> None:
    assert len(evaluated.products) > 30
    assert any(not product.description for product in evaluated.products)


def test_batch_prediction_answers_as_training_evaluated(evaluated: Evaluated) -> None:
    assert [int(row["code"]) for row in evaluated.table] == evaluated.codes
    confidence = [float(row["confidence"]) for row in evaluated.table]
    assert confidence == pytest.approx(evaluated.confidence, abs=TOLERANCE)


def test_predictor_answers_as_training_evaluated(
    evaluated: Evaluated, answers: list[Prediction]
) -> None:
    assert [answer.code for answer in answers] == evaluated.codes
    confidence = [answer.confidence for answer in answers]
    assert confidence == pytest.approx(evaluated.confidence, abs=TOLERANCE)


def test_batch_prediction_and_predictor_say_the_same_in_full(
    evaluated: Evaluated, answers: list[Prediction]
) -> None:
    for row, answer in zip(evaluated.table, answers, strict=True):
        said = [int(row[name]) for name in ("code", "top2_code", "top3_code")]
        assert said == [ranked.code for ranked in answer.top]
        assert (row["decision"], row["modalities"]) == (answer.decision, answer.modalities)
        assert float(row["threshold"]) == pytest.approx(answer.threshold, abs=1e-6)
        assert (row["photo_error"] == "") == ("image" in answer.modalities)


def test_accuracy_in_the_manifest_is_that_of_batch_prediction(
    trained_workspace: Workspace, evaluated: Evaluated
) -> None:
    labels = load_labels(trained_workspace.raw / LABELS_FILE)
    right = np.mean([labels[int(row["row"])] == int(row["code"]) for row in evaluated.table])
    manifest = read_json(Path(trained_workspace.candidate) / "manifest.json")
    assert right == pytest.approx(manifest["metrics"]["fusion"]["accuracy"])
