"""Where products and photos are looked for, and what names their content."""

import logging
import os
import zipfile
from pathlib import Path

import pytest

from product_classifier.core.errors import ConfigurationError, DataValidationError
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, TRAIN_FILE, Workspace
from product_classifier.features.photos import write_shard
from product_classifier.predict.inputs import (
    Inputs,
    fingerprint_inputs,
    fingerprint_photos,
    resolve_inputs,
)


@pytest.fixture
def ingested(workspace: Workspace) -> Workspace:
    (workspace.raw / "photos").mkdir(parents=True)
    for name in (TEST_FILE, TRAIN_FILE):
        (workspace.raw / name).write_text(f"{name}\n")
    write_shard(workspace.raw / "photos" / "shard-00.zip", {"a.jpg": b"a", "b.jpg": b"b"})
    return workspace


def settings(**values: str) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


def found(workspace: Workspace, **values: str) -> tuple[Path, Path | None]:
    inputs = resolve_inputs(workspace, settings(**values))
    assert inputs is not None
    return inputs.dataset, inputs.photos


def test_ingested_products_and_photos_by_default(ingested: Workspace) -> None:
    inputs = resolve_inputs(ingested, settings())
    raw = ingested.raw
    assert inputs == Inputs(raw / TEST_FILE, raw / "photos", True, True)


def test_dataset_path_and_images_path_are_taken(ingested: Workspace) -> None:
    mine = ingested.root / "mine"
    (mine / "pictures").mkdir(parents=True)
    (mine / "new.csv").write_text("x")
    inputs = resolve_inputs(
        ingested, settings(dataset_path="mine/new.csv", images_path=str(mine / "pictures"))
    )
    assert inputs == Inputs(mine / "new.csv", mine / "pictures", False, False)


def test_options_win_over_settings(ingested: Workspace, tmp_path: Path) -> None:
    for name in ("set.csv", "given.csv", "set.zip", "given.zip"):
        (tmp_path / name).write_text("x")
    inputs = resolve_inputs(
        ingested,
        settings(dataset_path=str(tmp_path / "set.csv"), images_path=str(tmp_path / "set.zip")),
        tmp_path / "given.csv",
        tmp_path / "given.zip",
    )
    assert inputs is not None
    assert (inputs.dataset.name, inputs.photos) == ("given.csv", tmp_path / "given.zip")


def test_dataset_path_may_be_the_folder_of_the_unlabelled_products(ingested: Workspace) -> None:
    assert found(ingested, dataset_path="data/raw")[0] == ingested.raw / TEST_FILE


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        ("data/preprocessed/X_test_update.csv", TEST_FILE),
        ("/somewhere/else/X_test_update.csv", TEST_FILE),
        ("data/preprocessed/X_train_update.csv", TRAIN_FILE),
        ("data/preprocessed", TEST_FILE),
    ],
)
def test_file_of_the_earlier_layout_falls_back_to_the_ingested_one_and_says_so(
    ingested: Workspace, caplog: pytest.LogCaptureFixture, wanted: str, taken: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert found(ingested, dataset_path=wanted)[0] == ingested.raw / taken
    assert "DATASET_PATH: there is no" in caplog.text
    assert wanted in caplog.text


@pytest.mark.parametrize("name", ["image_test", "image_train", "images"])
def test_photo_folder_of_the_earlier_layout_falls_back_to_the_ingested_photos(
    ingested: Workspace, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.WARNING):
        photos = found(ingested, images_path=f"data/preprocessed/{name}")[1]
    assert photos == ingested.raw / "photos"
    assert "IMAGES_PATH: there is no" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset_path", "data/my_products.csv"),
        ("images_path", "data/my_photos"),
    ],
)
def test_any_other_path_that_leads_nowhere_is_refused(
    ingested: Workspace, name: str, value: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{name.upper()}: expected .*{value}") as caught:
        resolve_inputs(ingested, settings(**{name: value}))
    assert caught.value.exit_code == 2


def test_existing_folder_without_products_is_refused_not_replaced(ingested: Workspace) -> None:
    (ingested.root / "mine").mkdir()
    with pytest.raises(ConfigurationError, match="DATASET_PATH: expected"):
        resolve_inputs(ingested, settings(dataset_path="mine"))


def test_option_that_leads_nowhere_is_refused_even_with_a_known_name(ingested: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="--dataset: expected"):
        resolve_inputs(ingested, settings(), Path("nowhere") / TEST_FILE)
    with pytest.raises(ConfigurationError, match="--images: expected"):
        resolve_inputs(ingested, settings(), None, Path("nowhere/images"))


def test_catalogue_without_unlabelled_products_gives_nothing_to_score(ingested: Workspace) -> None:
    (ingested.raw / TEST_FILE).unlink()
    assert resolve_inputs(ingested, settings()) is None
    assert resolve_inputs(ingested, settings(dataset_path=f"data/preprocessed/{TEST_FILE}")) is None


def test_no_photos_at_all_is_said(ingested: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    (ingested.raw / "photos" / "shard-00.zip").unlink()
    (ingested.raw / "photos").rmdir()
    assert found(ingested)[1] is None
    assert "scored by text alone" in caplog.text


def test_fingerprint_of_shards_follows_content_not_date_or_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "shard-00.zip", {"a.jpg": b"a"})
    os.utime(tmp_path / "two" / "shard-00.zip", (0, 0))
    before = fingerprint_photos(tmp_path / "one")
    assert fingerprint_photos(tmp_path / "two") == before
    write_shard(tmp_path / "two" / "shard-00.zip", {"a.jpg": b"c"})
    assert fingerprint_photos(tmp_path / "two") != before


def test_fingerprint_of_a_zip_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    marks = []
    for content in (b"a", b"b"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.jpg", content)
        marks.append(fingerprint_photos(path))
    assert marks[0] != marks[1]


def test_fingerprint_of_a_folder_follows_names_sizes_and_dates(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"a")
    before = fingerprint_photos(tmp_path)
    (tmp_path / "predictions.json").write_text("no photo")
    assert fingerprint_photos(tmp_path) == before
    os.utime(photo, (1, 1))
    assert fingerprint_photos(tmp_path) != before


def test_archive_that_is_none_is_refused(ingested: Workspace) -> None:
    (ingested.root / "photos.zip").write_text("no zip")
    inputs = resolve_inputs(ingested, settings(images_path="photos.zip"))
    assert inputs is not None
    with pytest.raises(DataValidationError, match="can't be read") as caught:
        fingerprint_inputs(inputs)
    assert caught.value.exit_code == 2
