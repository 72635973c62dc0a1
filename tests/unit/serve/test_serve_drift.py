"""Drift through the really trained model: products of the generated catalogue that it never saw, changed and unchanged.

The reference is made anew from 300 of them: the bundle's own has some 50 products, enough to raise no false alarm.
"""

import io
import random
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from prediction_app import live_model
from product_classifier.core.bundle import Manifest, read_manifest
from product_classifier.core.params import SampleParams
from product_classifier.core.workspace import Workspace
from product_classifier.ingest.sample import generate
from product_classifier.modeling.drift import Answered, build_reference
from product_classifier.modeling.fusion import NOTHING
from product_classifier.modeling.observation_table import COLUMNS, parse_table
from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.app import create_app
from product_classifier.serve.drift import DriftMonitor
from product_classifier.serve.live_model import LiveModel, Scored
from product_classifier.web.metric_registry import MetricRegistry
from serving import bearer, champion_workspace, serve_settings

WINDOW = 500
REFERENCE, OTHERS = 300, 250
USER, ADMIN = bearer(), bearer("root", "admin")


@lru_cache(maxsize=1)
def products() -> list[tuple[ProductInput, int]]:
    """Products that no training saw: another seed than the trained catalogue's."""
    params = SampleParams(products=REFERENCE + OTHERS, unlabelled=1, seed=11)
    return [
        (ProductInput(product.title, product.description, photo), code)
        for product, code, photo in generate(params)
    ][: REFERENCE + OTHERS]


@pytest.fixture(scope="module")
def model(trained_workspace: Workspace) -> LiveModel:
    return live_model(trained_workspace.candidate)


@pytest.fixture(scope="module")
def answers(model: LiveModel) -> list[Scored]:
    return [model.score(product) for product, _ in products()]


@pytest.fixture(scope="module")
def manifest(model: LiveModel, answers: list[Scored]) -> Manifest:
    rows = [
        Answered(one.observation, one.prediction.code, one.prediction.confidence)
        if one.prediction.modalities != NOTHING
        else Answered(one.observation, None, None)
        for one in answers[:REFERENCE]
    ]
    labels = model.manifest.labels
    return model.manifest.model_copy(update={"drift": build_reference(rows, labels)})


def watched(manifest: Manifest, answers: list[Scored]) -> DriftMonitor:
    monitor = DriftMonitor(MetricRegistry(), WINDOW)
    monitor.use(manifest)
    for one in answers:
        monitor.add(one)
    return monitor


def drifted(monitor: DriftMonitor) -> list[str]:
    found = monitor.figures()
    assert found is not None
    return found.drifted


def draw(answers: list[Scored], count: int, seed: int) -> list[Scored]:
    return random.Random(seed).choices(answers, k=count)


def assert_quiet(manifest: Manifest, answers: list[Scored]) -> None:
    for seed in range(20):
        monitor = watched(manifest, draw(answers, WINDOW, seed))
        found = monitor.figures()
        assert found is not None
        assert found.drifted == [], found.features
        assert not found.is_accuracy_low


def test_no_alarm_on_products_like_those_of_training(
    manifest: Manifest, answers: list[Scored]
) -> None:
    """The reference's own products and others."""
    assert_quiet(manifest, answers)
    assert_quiet(manifest, answers[REFERENCE:])


def test_no_alarm_with_the_bundles_own_small_reference(
    trained_workspace: Workspace, answers: list[Scored]
) -> None:
    assert_quiet(read_manifest(trained_workspace.candidate), answers)


def test_half_the_titles_in_english_are_found_within_500_products(
    model: LiveModel, manifest: Manifest, answers: list[Scored]
) -> None:
    usual = answers[REFERENCE:]
    english = [
        product.title
        for (product, _), one in zip(products(), answers, strict=True)
        if one.observation.language == "en"
    ]
    assert len(english) > 10
    generator = random.Random(1)
    changed = [
        model.score(replace(product, title=generator.choice(english)))
        if index % 2
        else usual[index]
        for index, (product, _) in enumerate(products()[REFERENCE:])
    ]
    monitor = watched(manifest, draw(usual, WINDOW, 1))
    assert drifted(monitor) == []
    for one in draw(changed, WINDOW, 2):
        monitor.add(one)

    assert "language" in drifted(monitor)


def darkened(photo: bytes) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as opened:
        upright = opened.convert("RGB")
    Image.eval(upright, lambda level: level // 2).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def test_photos_half_as_bright_are_found_within_500_products(
    model: LiveModel, manifest: Manifest, answers: list[Scored]
) -> None:
    usual = answers[REFERENCE:]
    dark = [
        model.score(replace(product, photo=darkened(product.photo)) if product.photo else product)
        for product, _ in products()[REFERENCE : REFERENCE + 100]
    ]
    monitor = watched(manifest, draw(usual, WINDOW, 1))
    for one in draw(dark, WINDOW, 2):
        monitor.add(one)

    assert "brightness" in drifted(monitor)


def test_a_class_that_grows_from_5_to_40_percent_is_found_within_500_products(
    manifest: Manifest, answers: list[Scored]
) -> None:
    """Of what is predicted: the small model knows only a third of most classes, and 40 % of one are 15 % of answers."""
    codes = [one.prediction.code for one in answers]
    tally = Counter(codes)
    chosen = min(tally, key=lambda code: abs(tally[code] / len(codes) - 0.05))
    assert tally[chosen] / len(codes) == pytest.approx(0.05, abs=0.015)
    usual = answers[REFERENCE:]
    of_it = [one for one, code in zip(answers, codes, strict=True) if code == chosen]
    others = [one for one, code in zip(answers, codes, strict=True) if code != chosen]
    monitor = watched(manifest, draw(usual, WINDOW, 1))
    mixture = draw(of_it, 200, 2) + draw(others, 300, 3)
    random.Random(4).shuffle(mixture)
    for one in mixture:
        monitor.add(one)

    assert "predicted_code" in drifted(monitor)


@pytest.fixture(scope="module")
def served(trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root: Path = tmp_path_factory.mktemp("drift") / "work space"
    app = create_app(serve_settings(), champion_workspace(trained_workspace, root))
    with TestClient(app) as client:
        yield client


def send(served: TestClient, product: ProductInput) -> None:
    form: dict[str, Any] = {"designation": (None, product.title)}
    if product.photo:
        form["image"] = ("photo.jpg", product.photo, "image/jpeg")
    answer = served.post("/predict", files=form, headers=USER)
    assert answer.status_code == 200, answer.text


def test_requests_are_observed_and_shown_to_admins(
    served: TestClient, answers: list[Scored]
) -> None:
    before = served.get("/model/drift", headers=ADMIN).json()["figures"]["products"]
    product, _ = products()[0]
    send(served, product)

    shown = served.get("/model/drift", headers=ADMIN).json()
    assert shown["figures"]["products"] == before + 1
    assert shown["bundle_id"] == served.get("/ready").json()["bundle_id"]
    assert set(shown["figures"]["features"]) <= set(COLUMNS)
    text = served.get("/metrics").text
    assert f'drift_window_products{{feature="text_length"}} {before + 1}.0' in text


def test_observations_come_as_a_table_without_words(served: TestClient) -> None:
    title = "Un mot tres particulier zanzibar"
    send(served, ProductInput(title))
    found = served.get("/model/drift/observations", headers=ADMIN)

    assert found.headers["content-type"].startswith("text/csv")
    assert found.text.splitlines()[0] == ",".join(("time", "bundle_id", *COLUMNS))
    rows = parse_table(found.text)
    assert rows[-1].facts.text_length == len(title)
    assert rows[-1].facts.has_photo is False
    assert "zanzibar" not in found.text


def test_observations_are_chosen_by_time(served: TestClient) -> None:
    send(served, ProductInput("chaise"))
    address = "/model/drift/observations"
    lines = served.get(address, headers=ADMIN).text.splitlines()
    last = lines[-1].split(",")[0]

    since = served.get(address, params={"since": last}, headers=ADMIN).text.splitlines()
    until = served.get(address, params={"until": last}, headers=ADMIN).text.splitlines()
    assert since[1:] == lines[-1:]
    assert until == lines[:-1]
    future = served.get(address, params={"since": "2999-01-01T00:00:00"}, headers=ADMIN)
    assert len(future.text.splitlines()) == 1
    assert served.get(address, params={"since": "soon"}, headers=ADMIN).status_code == 422


@pytest.mark.parametrize("path", ["/model/drift", "/model/drift/observations"])
def test_only_admins_see_drift(served: TestClient, path: str) -> None:
    assert served.get(path, headers=USER).status_code == 403
    assert served.get(path).status_code == 401
