"""Explanations by occlusion."""

import asyncio
import time

import numpy as np
import pytest

from prediction_app import live_model
from product_classifier.core.workspace import Workspace
from product_classifier.features.text import compose_text
from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.explain import (
    MAX_WORDS,
    TOO_SLOW,
    Explainer,
    Explanation,
    NoExplanation,
    join_words,
)
from product_classifier.serve.live_model import LiveModel
from upload_corpus import encode, picture

PATIENCE_SECONDS = 120.0  # two are enough on a machine that does nothing else
PRODUCT = ProductInput(
    "Chaise longue pliante", "Belle chaise en bois massif", encode(picture(), "JPEG")
)


@pytest.fixture(scope="module")
def model(trained_workspace: Workspace) -> LiveModel:
    return live_model(trained_workspace.candidate)


def explain(model: LiveModel, product: ProductInput, waiting: int = 0) -> Explanation:
    async def work() -> Explanation:
        explainer = Explainer(lambda: waiting, PATIENCE_SECONDS if not waiting else 0.05)
        try:
            return await explainer.explain(model, product, model.score(product))
        finally:
            explainer.stop()

    return asyncio.run(work())


def test_effects_are_those_of_leaving_parts_out(model: LiveModel) -> None:
    found = explain(model, PRODUCT)
    whole = model.predictor.predict([PRODUCT])[0]
    column = model.predictor.labels.codes.index(whole.code)

    def confidence(product: ProductInput) -> float:
        return float(model.predictor.score([model.predictor.decode(product)])[0, column])

    without_photo = confidence(ProductInput(PRODUCT.title, PRODUCT.description))
    without_text = confidence(ProductInput(photo=PRODUCT.photo))
    assert found.modalities["image"].confidence_without == pytest.approx(without_photo, abs=1e-5)
    assert found.modalities["text"].confidence_without == pytest.approx(without_text, abs=1e-5)
    assert found.modalities["text"].log_probability_change == pytest.approx(
        np.log(whole.confidence / without_text), abs=1e-4
    )
    drops = {(effect.field, effect.word): effect.drop for effect in found.words}
    shorter = ProductInput("Chaise longue", PRODUCT.description, PRODUCT.photo)
    assert drops["designation", "pliante"] == pytest.approx(
        whole.confidence - confidence(shorter), abs=1e-5
    )
    assert [effect.drop for effect in found.words] == sorted(drops.values(), reverse=True)


def test_one_modality_is_held_against_the_classes_shares(model: LiveModel) -> None:
    found = explain(model, ProductInput("Chaise"))
    assert set(found.modalities) == {"text"}
    [word] = found.words
    whole = model.predictor.predict([ProductInput("Chaise")])[0]
    share = model.predictor.weights.prior[model.predictor.labels.codes.index(whole.code)]
    assert word.drop == pytest.approx(whole.confidence - share, abs=1e-5)


def test_long_texts_are_explained_in_time(model: LiveModel) -> None:
    started = time.process_time()  # of the processors: others' work is none of its own
    found = explain(model, ProductInput("mot " * 250, "texte long " * 4500))
    assert len(found.words) == MAX_WORDS
    assert time.process_time() - started < 6


def test_requests_go_before_explanations(model: LiveModel) -> None:
    with pytest.raises(NoExplanation, match=TOO_SLOW):
        explain(model, PRODUCT, waiting=1)


def test_nothing_is_not_explained(model: LiveModel) -> None:
    with pytest.raises(NoExplanation, match="neither text nor"):
        explain(model, ProductInput("nan", None, b"broken"))


def test_too_many_at_once_are_refused(model: LiveModel) -> None:
    async def work() -> list[object]:
        explainer = Explainer(lambda: 1, 0.3)
        scored = model.score(PRODUCT)
        asked = (explainer.explain(model, PRODUCT, scored) for _ in range(8))
        found = await asyncio.gather(*asked, return_exceptions=True)
        explainer.stop()
        return [str(one) for one in found]

    told = asyncio.run(work())
    assert sum("Too many" in str(one) for one in told) == 3


@pytest.mark.parametrize(
    ("title", "description"),
    [
        ("Un livre", "de poche"),
        ("Un", None),
        (None, "poche"),
        (None, None),
        ("a  b\0c", "<b>d</b>"),
    ],
)
def test_words_are_joined_as_texts_are_composed(title: str | None, description: str | None) -> None:
    def words(text: str | None) -> list[str]:
        return compose_text(text, None).removeprefix("[TITLE] ").split()

    assert join_words(words(title), words(description)) == compose_text(title, description)
