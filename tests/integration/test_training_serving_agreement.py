"""One product, one answer: training's evaluation, batch prediction and `Predictor` agree."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from product_classifier.core.catalogue import PRODUCT_COLUMNS, Product, load_labels, load_products
from product_classifier.core.files import read_json
from product_classifier.core.params import PredictParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import LABELS_FILE, TRAIN_FILE, Workspace
from product_classifier.features.photos import PhotoStore
from product_classifier.modeling.predictor import Prediction, Predictor, ProductInput
from product_classifier.predict.job import Request
from product_classifier.predict.predict import predict
from trained import EVALUATION

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def evaluation(trained_workspace: Workspace) -> dict[str, Any]:
    """What training's own evaluation saw on the test split."""
    with np.load(trained_workspace.root / EVALUATION) as content:
        return dict(content)


@pytest.fixture(scope="module")
def products(trained_workspace: Workspace, evaluation: dict[str, Any]) -> list[Product]:
    by_row = {product.row: product for product in load_products(trained_workspace.raw / TRAIN_FILE)}
    return [by_row[row] for row in evaluation["rows"].tolist()]


@pytest.fixture(scope="module")
def table(
    trained_workspace: Workspace, products: list[Product], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, str]]:
    """What batch prediction says about the same products."""
    workspace = Workspace(tmp_path_factory.mktemp("batch"))
    dataset = workspace.root / "test_split.csv"
    with dataset.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(PRODUCT_COLUMNS)
        for one in products:
            writer.writerow([one.row, one.title, one.description, one.product_id, one.image_id])
    request = Request(dataset, trained_workspace.raw / "photos", str(trained_workspace.candidate))
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    predict(workspace, settings, PredictParams(chunk_products=10), request)
    with (workspace.predictions / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def answers(trained_workspace: Workspace, products: list[Product]) -> list[Prediction]:
    """What serving says about them, all at once."""
    photos = PhotoStore(trained_workspace.raw / "photos")
    inputs = [ProductInput(p.title, p.description, photos.read(p.photo_name)) for p in products]
    photos.close()
    return Predictor.load(trained_workspace.candidate, "LATENCY").predict(inputs)


def test_split_holds_products_with_and_without_parts(products: list[Product]) -> None:
    assert len(products) > 30
    assert any(not product.description for product in products)


def test_batch_prediction_answers_as_training_evaluated(
    evaluation: dict[str, Any], table: list[dict[str, str]]
) -> None:
    probabilities = evaluation["probabilities"]
    codes = evaluation["codes"][probabilities.argmax(axis=1)]
    assert [int(row["code"]) for row in table] == codes.tolist()
    confidence = [float(row["confidence"]) for row in table]
    assert confidence == pytest.approx(probabilities.max(axis=1).tolist(), abs=TOLERANCE)


def test_predictor_answers_as_training_evaluated(
    evaluation: dict[str, Any], answers: list[Prediction]
) -> None:
    probabilities = evaluation["probabilities"]
    codes = evaluation["codes"][probabilities.argmax(axis=1)]
    assert [answer.code for answer in answers] == codes.tolist()
    confidence = [answer.confidence for answer in answers]
    assert confidence == pytest.approx(probabilities.max(axis=1).tolist(), abs=TOLERANCE)


def test_batch_prediction_and_predictor_say_the_same_in_full(
    table: list[dict[str, str]], answers: list[Prediction]
) -> None:
    for row, answer in zip(table, answers, strict=True):
        said = [int(row[name]) for name in ("code", "top2_code", "top3_code")]
        assert said == [ranked.code for ranked in answer.top]
        assert (row["decision"], row["modalities"]) == (answer.decision, answer.modalities)
        assert float(row["threshold"]) == pytest.approx(answer.threshold, abs=1e-6)
        assert (row["photo_error"] == "") == ("image" in answer.modalities)


def test_accuracy_in_the_manifest_is_that_of_batch_prediction(
    trained_workspace: Workspace, table: list[dict[str, str]]
) -> None:
    labels = load_labels(trained_workspace.raw / LABELS_FILE)
    right = np.mean([labels[int(row["row"])] == int(row["code"]) for row in table])
    manifest = read_json(Path(trained_workspace.candidate) / "manifest.json")
    assert right == pytest.approx(manifest["metrics"]["fusion"]["accuracy"])
