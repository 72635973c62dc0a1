"""The drift reference of a really trained bundle: the test products, as serving would observe them."""

import numpy as np
import pytest

from product_classifier.core.bundle import REFERENCE_OBSERVATIONS, Bundle, load_bundle
from product_classifier.core.catalogue import load_products
from product_classifier.core.workspace import TRAIN_FILE, Workspace
from product_classifier.features.photos import PhotoStore
from product_classifier.modeling.drift import Answered, build_reference
from product_classifier.modeling.observation import observe
from product_classifier.modeling.observation_table import read_table
from product_classifier.modeling.predictor import Predictor, ProductInput
from product_classifier.train.reference import MAX_PRODUCTS, reference_rows
from trained import EVALUATION


@pytest.fixture(scope="module")
def bundle(trained_workspace: Workspace) -> Bundle:
    return load_bundle(trained_workspace.candidate)


@pytest.fixture(scope="module")
def rows(bundle: Bundle) -> list[Answered]:
    return read_table(bundle.file(REFERENCE_OBSERVATIONS))


def test_manifest_holds_the_reference_of_the_file(bundle: Bundle, rows: list[Answered]) -> None:
    assert bundle.manifest.drift == build_reference(rows, bundle.manifest.labels)
    assert bundle.manifest.drift.products == len(rows)


def test_rows_are_the_test_products_as_serving_observes_them(
    trained_workspace: Workspace, bundle: Bundle, rows: list[Answered]
) -> None:
    predictor = Predictor(bundle)
    evaluation = np.load(trained_workspace.root / EVALUATION)
    products = {
        product.row: product for product in load_products(trained_workspace.raw / TRAIN_FILE)
    }
    photos = PhotoStore(trained_workspace.raw / "photos")
    assert len(rows) == len(evaluation["rows"])
    for row, index, probabilities in zip(
        rows, evaluation["rows"], evaluation["probabilities"], strict=True
    ):
        product = products[int(index)]
        photo = photos.read(product.photo_name)
        decoded = predictor.decode(ProductInput(product.title, product.description, photo))
        assert row.facts == observe(decoded, predictor.tokenize([decoded.text]))
        assert row.predicted_code == evaluation["codes"][probabilities.argmax()]
        assert row.confidence == pytest.approx(probabilities.max())
    photos.close()


def test_file_holds_numbers_and_codes_only(bundle: Bundle) -> None:
    lines = bundle.file(REFERENCE_OBSERVATIONS).read_text().splitlines()
    languages = {line.split(",")[2] for line in lines[1:]}

    assert languages <= {"de", "en", "es", "fr", "it", "nl", "pt", ""}
    for line in lines[1:]:
        cells = line.split(",")
        del cells[2]
        assert all(cell == "" or np.isfinite(float(cell)) for cell in cells)


def test_large_test_splits_are_sampled_always_alike() -> None:
    large = np.arange(13_000)

    found = reference_rows(large)
    assert len(set(found.tolist())) == MAX_PRODUCTS == 2000
    assert found.max() < len(large)
    assert found.mean() == pytest.approx(6500, abs=500)  # five standard deviations
    assert (found == reference_rows(large)).all()
    assert reference_rows(np.arange(5) + 100).tolist() == [0, 1, 2, 3, 4]
