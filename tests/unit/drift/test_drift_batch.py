"""The last batch against the reference of the bundle that scored it."""

import io
import zipfile
from pathlib import Path

import pytest
from drift_batches import FRESH, PRODUCTS, score, settings_for
from PIL import Image

from prediction_app import live_model
from product_classifier.core.catalogue import Product, load_products
from product_classifier.core.errors import (
    ArtifactError,
    ConfigurationError,
    DataValidationError,
    NothingToDo,
)
from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, Workspace
from product_classifier.drift.batch import compare_batch, draw_sample, read_batch
from product_classifier.drift.comparison import Comparison
from product_classifier.features.photos import PhotoStore
from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.drift import DriftMonitor
from product_classifier.web.metric_registry import MetricRegistry


def products_of(workspace: Workspace) -> dict[int, Product]:
    return {one.row: one for one in load_products(workspace.root / FRESH / TEST_FILE)}


def compare(workspace: Workspace, photos: Path | None = None, sample: int = 2000) -> Comparison:
    store = PhotoStore(photos or workspace.root / FRESH / "photos")
    try:
        batch = read_batch(workspace)
        return compare_batch(workspace, batch, products_of(workspace), store, sample=sample)
    finally:
        store.close()


def edit_manifest(workspace: Workspace, **values: object) -> None:
    (release,) = workspace.releases.iterdir()
    manifest = read_json(release / "manifest.json")
    (release / "manifest.json").unlink()
    write_json_atomic(release / "manifest.json", {**manifest, **values})


def test_it_says_of_a_batch_what_serve_says_of_the_same_products(scored: Workspace) -> None:
    found = compare(scored).figures
    products = products_of(scored)
    model = live_model(next(scored.releases.iterdir()))
    monitor = DriftMonitor(MetricRegistry(), window=len(products))
    monitor.use(model.manifest)
    photos = PhotoStore(scored.root / FRESH / "photos")
    for product in products.values():
        photo = photos.read(product.photo_name)
        answer = model.score(ProductInput(product.title, product.description, photo))
        monitor.add(answer)
    photos.close()
    served = monitor.figures()
    assert served is not None
    assert found.products == served.products == PRODUCTS
    assert found.missing == served.missing
    assert set(found.features) == set(served.features) >= {"text_length", "brightness", "language"}
    for name in set(found.features) - {"confidence"}:
        assert found.features[name] == served.features[name], name
    # A batch's table keeps six digits of a confidence.
    assert found.features["confidence"].psi == pytest.approx(
        served.features["confidence"].psi, abs=0.01
    )
    assert found.expected_accuracy == pytest.approx(served.expected_accuracy, abs=1e-4)


def test_products_like_those_of_the_test_have_not_drifted(scored: Workspace) -> None:
    comparison = compare(scored)
    assert comparison.figures.drifted == []
    assert comparison.verdict == "No drift: every index is below its limit."
    assert comparison.bundle_id == next(scored.releases.iterdir()).name
    assert comparison.population == PRODUCTS


def test_darkened_photos_are_found(scored: Workspace, tmp_path: Path) -> None:
    store = PhotoStore(scored.root / FRESH / "photos")
    with zipfile.ZipFile(tmp_path / "dark.zip", "w") as archive:
        for name in store.names():
            photo = Image.open(io.BytesIO(store.read(name) or b"")).convert("RGB")
            dark = io.BytesIO()
            photo.point(lambda level: level // 2).save(dark, "JPEG")
            archive.writestr(name, dark.getvalue())
    store.close()
    comparison = compare(scored, tmp_path / "dark.zip")
    # Half the light is half the contrast, too.
    assert comparison.figures.drifted == ["brightness", "sharpness"]
    assert comparison.verdict == "Drift of brightness, sharpness."


def test_photos_that_are_gone_are_counted_as_missing(scored: Workspace, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    figures = compare(scored, tmp_path / "none").figures
    assert figures.missing["photo"] == 1.0
    assert figures.features["brightness"].products == 0
    assert not figures.features["brightness"].has_drifted


def test_a_damaged_archive_costs_its_photos_and_no_more(scored: Workspace, tmp_path: Path) -> None:
    store = PhotoStore(scored.root / FRESH / "photos")
    names = store.names()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in names:
            archive.writestr(name, store.read(name) or b"")
    store.close()
    content = bytearray((tmp_path / "photos.zip").read_bytes())
    content[200:400] = b"\0" * 200  # within the first photo: its checksum is wrong
    (tmp_path / "photos.zip").write_bytes(content)
    figures = compare(scored, tmp_path / "photos.zip").figures
    assert figures.missing["photo"] == pytest.approx(1 / PRODUCTS)


def test_a_sample_is_the_same_one_each_time_and_whatever_the_order() -> None:
    rows = list(range(5000))
    drawn = draw_sample(rows, 2000)
    assert drawn == draw_sample(list(reversed(rows)), 2000)
    assert len(set(drawn)) == 2000
    # Of each stretch of the file about as many: neither its beginning nor its end.
    assert all(
        300 < sum(start <= row < start + 1000 for row in drawn) < 500 for start in rows[::1000]
    )
    assert draw_sample(rows[:7], 2000) == rows[:7]


def test_a_large_batch_is_sampled_and_says_so(scored: Workspace) -> None:
    comparison = compare(scored, sample=60)
    assert (comparison.figures.products, comparison.population) == (60, PRODUCTS)
    assert comparison.current == compare(scored, sample=60).current


def test_few_products_give_no_verdict(scored: Workspace) -> None:
    comparison = compare(scored, sample=20)
    assert comparison.figures.drifted == []
    assert comparison.verdict == "Fewer than 50 products: too few to tell drift from chance."


def test_without_predictions_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Run `product-classifier predict` first"):
        read_batch(Workspace(tmp_path))


def test_predictions_of_another_form_are_refused(scored: Workspace) -> None:
    table = scored.predictions / "predictions.csv"
    table.unlink()
    table.write_text("row,name\r\n1,x\r\n")
    with pytest.raises(DataValidationError, match="can't be read: KeyError"):
        read_batch(scored)


def test_a_products_file_that_changed_since_is_refused(scored: Workspace) -> None:
    table = scored.root / FRESH / TEST_FILE
    content = table.read_text()
    table.unlink()
    table.write_text(content + "\n")
    with pytest.raises(DataValidationError, match="is not the file that was scored"):
        read_batch(scored).check_dataset(table)


def test_a_bundle_without_a_reference_is_nothing_to_compare_with(scored: Workspace) -> None:
    edit_manifest(scored, drift=None)
    with pytest.raises(NothingToDo, match="Train again"):
        compare(scored)


def test_a_damaged_bundle_is_refused(scored: Workspace) -> None:
    table = next(scored.releases.iterdir()) / "reference_observations.csv"
    table.unlink()
    table.write_text("text_length\n1\n")
    with pytest.raises(ArtifactError, match=r"reference_observations.csv has"):
        compare(scored)


def test_a_bundle_that_is_not_here_is_named(scored: Workspace, settings: Settings) -> None:
    release = next(scored.releases.iterdir())
    release.rename(release.with_name("0" * 16))
    (scored.candidate / "manifest.json").unlink()
    with pytest.raises(ConfigurationError, match=f"{release.name}, is not in"):
        compare(scored)


def test_the_candidate_will_do_where_it_scored(scored: Workspace) -> None:
    release = next(scored.releases.iterdir())
    release.rename(release.with_name("0" * 16))
    assert compare(scored).bundle_id == release.name


def test_rows_without_an_answer_are_no_products_of_it(scored: Workspace) -> None:
    table = scored.root / "with faults.csv"
    table.write_text((scored.root / FRESH / TEST_FILE).read_text() + "x,title,text,1,2\n")
    score(scored, settings_for(scored, dataset_path=table))
    comparison = compare(scored)
    assert comparison.population == PRODUCTS
