"""The same products over HTTP, in training's evaluation and in batch prediction: one answer."""

import csv
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from prediction_app import with_client
from product_classifier.core.catalogue import PRODUCT_COLUMNS, Product, load_products
from product_classifier.core.params import PredictParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TRAIN_FILE, Workspace
from product_classifier.features.photos import PhotoStore
from product_classifier.predict.job import Request
from product_classifier.predict.predict import predict
from trained import EVALUATION

TOLERANCE = 1e-3
BATCH = 20


@pytest.fixture(scope="module")
def evaluation(trained_workspace: Workspace) -> dict[str, Any]:
    with np.load(trained_workspace.root / EVALUATION) as content:
        return dict(content)


@pytest.fixture(scope="module")
def products(trained_workspace: Workspace, evaluation: dict[str, Any]) -> list[Product]:
    by_row = {product.row: product for product in load_products(trained_workspace.raw / TRAIN_FILE)}
    return [by_row[row] for row in evaluation["rows"].tolist()]


@pytest.fixture(scope="module")
def photos(trained_workspace: Workspace, products: list[Product]) -> list[bytes | None]:
    store = PhotoStore(trained_workspace.raw / "photos")
    found = [store.read(product.photo_name) for product in products]
    store.close()
    return found


@pytest.fixture(scope="module")
def single(
    trained_workspace: Workspace, products: list[Product], photos: list[bytes | None]
) -> list[dict[str, Any]]:
    """What `POST /predict` says, product by product."""

    async def ask(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        answers = []
        for product, photo in zip(products, photos, strict=True):
            files: dict[str, Any] = {"designation": (None, product.title)}
            files["description"] = (None, product.description or "")
            if photo is not None:
                files["image"] = ("photo.jpg", photo, "image/jpeg")
            answer = await client.post("/predict", files=files)
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
        return answers

    return with_client(trained_workspace.candidate, ask)


@pytest.fixture(scope="module")
def batch(
    trained_workspace: Workspace, products: list[Product], photos: list[bytes | None]
) -> list[dict[str, Any]]:
    """What `POST /predict/batch` says."""

    async def ask(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        for start in range(0, len(products), BATCH):
            items, files = [], []
            for index in range(start, min(start + BATCH, len(products))):
                product, photo = products[index], photos[index]
                item = {"designation": product.title, "description": product.description}
                if photo is not None:
                    item["image"] = f"{index}.jpg"
                    files.append(("images", (f"{index}.jpg", photo, "image/jpeg")))
                items.append(item)
            data = {"products": json.dumps(items)}
            answer = await client.post("/predict/batch", data=data, files=files)
            assert answer.status_code == 200, answer.text
            answers += answer.json()["results"]
        return answers

    return with_client(trained_workspace.candidate, ask)


@pytest.fixture(scope="module")
def table(
    trained_workspace: Workspace, products: list[Product], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, str]]:
    """What batch prediction says."""
    workspace = Workspace(tmp_path_factory.mktemp("http"))
    dataset: Path = workspace.root / "test_split.csv"
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


@pytest.mark.parametrize("way", ["single", "batch"])
def test_http_answers_as_training_evaluated(
    way: str, evaluation: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    answers = request.getfixturevalue(way)
    probabilities = evaluation["probabilities"]
    codes = evaluation["codes"][probabilities.argmax(axis=1)]
    assert [answer["predictions"][0]["prediction"] for answer in answers] == codes.tolist()
    confidence = [answer["predictions"][0]["confidence"] for answer in answers]
    assert confidence == pytest.approx(probabilities.max(axis=1).tolist(), abs=TOLERANCE)


@pytest.mark.parametrize("way", ["single", "batch"])
def test_http_answers_as_batch_prediction(
    way: str, table: list[dict[str, str]], request: pytest.FixtureRequest
) -> None:
    for row, answer in zip(table, request.getfixturevalue(way), strict=True):
        said = [int(row[name]) for name in ("code", "top2_code", "top3_code")]
        assert [one["code"] for one in answer["top"]] == said
        assert answer["top"][0]["confidence"] == pytest.approx(
            float(row["confidence"]), abs=TOLERANCE
        )
        assert (answer["decision"], answer["modalities"]) == (row["decision"], row["modalities"])
        if answer["threshold"] is not None:
            assert answer["threshold"] == pytest.approx(float(row["threshold"]), abs=1e-6)
