"""The same products over HTTP, in training's evaluation and in batch prediction: one answer."""

import json
from typing import Any

import httpx
import pytest

from prediction_app import with_client
from product_classifier.core.workspace import Workspace

from .evaluated import TOLERANCE, Evaluated

BATCH = 20


@pytest.fixture(scope="module")
def single(trained_workspace: Workspace, evaluated: Evaluated) -> list[dict[str, Any]]:
    """What `POST /predict` says, product by product."""

    async def ask(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        answers = []
        for product, photo in zip(evaluated.products, evaluated.photos, strict=True):
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
def batch(trained_workspace: Workspace, evaluated: Evaluated) -> list[dict[str, Any]]:
    """What `POST /predict/batch` says."""

    async def ask(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        products, photos = evaluated.products, evaluated.photos
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


@pytest.mark.parametrize("way", ["single", "batch"])
def test_http_answers_as_training_evaluated(
    way: str, evaluated: Evaluated, request: pytest.FixtureRequest
) -> None:
    answers = request.getfixturevalue(way)
    assert [answer["predictions"][0]["prediction"] for answer in answers] == evaluated.codes
    confidence = [answer["predictions"][0]["confidence"] for answer in answers]
    assert confidence == pytest.approx(evaluated.confidence, abs=TOLERANCE)


@pytest.mark.parametrize("way", ["single", "batch"])
def test_http_answers_as_batch_prediction(
    way: str, evaluated: Evaluated, request: pytest.FixtureRequest
) -> None:
    for row, answer in zip(evaluated.table, request.getfixturevalue(way), strict=True):
        said = [int(row[name]) for name in ("code", "top2_code", "top3_code")]
        assert [one["code"] for one in answer["top"]] == said
        assert answer["top"][0]["confidence"] == pytest.approx(
            float(row["confidence"]), abs=TOLERANCE
        )
        assert (answer["decision"], answer["modalities"]) == (row["decision"], row["modalities"])
        if answer["threshold"] is not None:
            assert answer["threshold"] == pytest.approx(float(row["threshold"]), abs=1e-6)
