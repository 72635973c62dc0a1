"""What no change of spelling or packing may change, and what even a small model must do. On a really trained bundle."""

import html
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from product_classifier.core.workspace import Workspace
from product_classifier.features.images import decode_photo
from product_classifier.modeling.predictor import Prediction, Predictor, ProductInput
from product_classifier.train.dataset import load_dataset

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def predictor(trained_workspace: Workspace) -> Predictor:
    return Predictor.load(trained_workspace.candidate)


@pytest.fixture(scope="module")
def products(trained_workspace: Workspace) -> list[ProductInput]:
    """Thirty products of the test split with text and a photo that can be used."""
    dataset = load_dataset(trained_workspace.raw)
    found = [
        ProductInput(
            dataset.products[row].title,
            dataset.products[row].description,
            dataset.photos.read(dataset.products[row].photo_name),
        )
        for row in dataset.sides["test"]
    ]
    usable = [product for product in found if product.photo and product.title]
    assert len(usable) >= 30
    return usable[:30]


@pytest.fixture(scope="module")
def answers(predictor: Predictor, products: list[ProductInput]) -> list[Prediction]:
    return predictor.predict(products)


def reworded(product: ProductInput, change: Callable[[str], str]) -> ProductInput:
    return ProductInput(
        change(product.title or ""), change(product.description or ""), product.photo
    )


def repacked(product: ProductInput, change: Callable[[Image.Image], bytes]) -> ProductInput:
    assert product.photo is not None
    return ProductInput(product.title, product.description, change(decode_photo(product.photo)))


def save(photo: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(photo: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(photo.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def see_through(photo: Image.Image) -> bytes:
    opaque = photo.convert("RGBA")
    return save(opaque, "PNG")


def assert_same(found: list[Prediction], wanted: list[Prediction]) -> None:
    assert [answer.modalities for answer in found] == [answer.modalities for answer in wanted]
    assert [answer.code for answer in found] == [answer.code for answer in wanted]
    confidences = [[answer.confidence for answer in some] for some in (found, wanted)]
    np.testing.assert_allclose(*confidences, atol=TOLERANCE)


def test_the_answers_tell_products_apart(answers: list[Prediction]) -> None:
    """Without this, every test below would hold for a model that says the same to everything."""
    assert len({answer.code for answer in answers}) >= 8
    assert len({round(answer.confidence, 3) for answer in answers}) >= 20
    assert {answer.modalities for answer in answers} == {"text+image"}


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        str.lower,
        lambda text: f"  \n{text}\t ",
        lambda text: text.replace(" ", " \u00a0 "),
        html.escape,
        lambda text: html.escape(html.escape(text)),
        lambda text: "".join(f"&#{ord(c)};" if ord(c) > 127 else c for c in text),
        lambda text: f"<p><b>{text}</b></p>" if text else text,
        lambda text: text.replace("é", "e\u0301"),
        lambda text: "".join(c + ("\u00ad" if c.isalpha() else "") for c in text),
    ],
    ids=["upper", "lower", "spaces", "hard spaces", "entities", "entities twice", "references",
         "tags", "decomposed accents", "soft hyphens"],
)  # fmt: skip
def test_spelling_does_not_change_the_answer(
    predictor: Predictor,
    products: list[ProductInput],
    answers: list[Prediction],
    change: Callable[[str], str],
) -> None:
    plain = [reworded(product, html.unescape) for product in products]
    plain = [reworded(product, html.unescape) for product in plain]
    wanted = predictor.predict(plain)
    assert_same(wanted, answers)
    assert_same(predictor.predict([reworded(product, change) for product in plain]), wanted)


@pytest.mark.parametrize(
    "change",
    [
        lambda photo: save(photo, "PNG"),
        lambda photo: save(photo, "BMP"),
        lambda photo: save(photo, "WEBP", lossless=True),
        turned,
        see_through,
    ],
    ids=["png", "bmp", "webp", "stored turned", "alpha channel"],
)
def test_packing_does_not_change_the_answer(
    predictor: Predictor,
    products: list[ProductInput],
    answers: list[Prediction],
    change: Callable[[Image.Image], bytes],
) -> None:
    assert_same(predictor.predict([repacked(product, change) for product in products]), answers)


def test_a_jpeg_saved_again_hardly_changes_the_answer(
    predictor: Predictor, products: list[ProductInput], answers: list[Prediction]
) -> None:
    again = [repacked(p, lambda photo: save(photo, "JPEG", quality=95)) for p in products]
    found = predictor.predict(again)
    changes = [abs(a.confidence - b.confidence) for a, b in zip(found, answers, strict=True)]
    assert np.median(changes) < 0.05


def test_the_order_of_products_plays_no_part(
    predictor: Predictor, products: list[ProductInput], answers: list[Prediction]
) -> None:
    assert_same(predictor.predict(products[::-1])[::-1], answers)
    assert_same([predictor.predict([product])[0] for product in products[:5]], answers[:5])


def test_either_modality_alone_still_answers(
    predictor: Predictor, products: list[ProductInput]
) -> None:
    texts = predictor.predict([ProductInput(p.title, p.description, None) for p in products])
    photos = predictor.predict([ProductInput(None, None, p.photo) for p in products])
    assert {answer.modalities for answer in texts} == {"text"}
    assert {answer.modalities for answer in photos} == {"image"}
    for some in (texts, photos):
        assert len({answer.code for answer in some}) >= 5
        for answer in some:
            assert 0 < answer.confidence <= 1
            assert len({ranked.code for ranked in answer.top}) == 3


def test_either_modality_alone_beats_guessing(
    predictor: Predictor, trained_workspace: Workspace
) -> None:
    """Minimum functionality, on the rows it was trained on: 27 classes, the largest under a quarter."""
    dataset = load_dataset(trained_workspace.raw)
    rows = dataset.sides["train"]
    products = [dataset.products[row] for row in rows]
    codes = [dataset.label_map.codes[label] for label in dataset.labels[rows]]
    commonest = max(np.bincount(dataset.labels[rows])) / len(rows)
    texts = [ProductInput(product.title, product.description) for product in products]
    photos = [ProductInput(photo=dataset.photos.read(product.photo_name)) for product in products]
    for inputs in (texts, photos):
        found = predictor.predict(inputs)
        right = np.mean([answer.code == code for answer, code in zip(found, codes, strict=True)])
        assert right > 2 * commonest


def test_nothing_at_all_is_reviewed(predictor: Predictor) -> None:
    for nothing in (
        ProductInput(),
        ProductInput("", "", None),
        ProductInput("nan", "<br>", None),
        ProductInput(" \u00a0", "None", b"no photo"),
    ):
        answer = predictor.predict([nothing])[0]
        assert (answer.modalities, answer.decision) == ("nothing", "review")
        assert len(answer.top) == 3


@pytest.mark.parametrize(
    "text",
    ["[PAD] [UNK] [TITLE] [DESC]", "\x00\ud800\uffff", "😀" * 500, "x" * 100_000, "&#" + "9" * 9000, "<" * 10_000,
     "漢字かな", "\u0301" * 50_000],
    ids=["special tokens", "no characters", "emoji", "one long word", "huge reference", "open tags",
         "other script", "marks"],
)  # fmt: skip
def test_any_text_gets_an_answer(predictor: Predictor, text: str) -> None:
    answer = predictor.predict([ProductInput(text, text, None)])[0]
    assert np.isfinite(answer.confidence)
    assert answer.code in predictor.labels.codes
