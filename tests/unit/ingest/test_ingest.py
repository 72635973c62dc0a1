"""The whole stage: what it publishes, what it refuses, and what stays when it does."""

import csv
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer

from product_classifier.core.catalogue import load_labels, load_products
from product_classifier.core.errors import (
    ConfigurationError,
    DataValidationError,
    ProductClassifierError,
    SourceError,
)
from product_classifier.core.files import sha256_file
from product_classifier.core.params import IngestParams, SampleParams, ValidationParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.features.photos import PhotoStore
from product_classifier.ingest.ingest import ingest

TRAIN, LABELS, TEST = "X_train_update.csv", "Y_train_CVw08PX.csv", "X_test_update.csv"


def settings(**values: Any) -> Settings:
    return Settings(download_timeout_seconds=2, download_attempts=2, **values)


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def zip_images(catalogue: Path) -> None:
    with zipfile.ZipFile(catalogue / "images.zip", "w") as archive:
        for path in sorted((catalogue / "images").rglob("*.jpg")):
            archive.write(path, path.relative_to(catalogue).as_posix())
        archive.writestr("__MACOSX/images/._a.jpg", b"x")
    shutil.rmtree(catalogue / "images")


def zip_all(catalogue: Path, target: Path, prefix: str) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(catalogue.rglob("*")):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(catalogue).as_posix())
    return target


def edit(path: Path, change: Callable[[list[list[str]]], None]) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def test_sample_is_published_whole(project: Workspace, params: IngestParams) -> None:
    result = ingest(project, settings(), params)
    raw = project.raw
    assert (result.labelled, result.unlabelled) == (270, 27)
    products, labels = load_products(raw / TRAIN), load_labels(raw / LABELS)
    splits = json.loads((raw / "splits.json").read_text())
    assert sorted(splits["train"] + splits["validation"] + splits["test"]) == sorted(labels)
    photos = PhotoStore(raw / "photos")
    assert len(photos) == result.photos
    assert sum(product.photo_name in photos for product in products) >= 260
    photos.close()
    manifest = json.loads((raw / "manifest.json").read_text())
    found = hashes(raw)
    del found["manifest.json"]
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == found
    reference = json.loads((raw / "reference_statistics.json").read_text())
    assert abs(sum(reference["class_prior"].values()) - 1) < 1e-3
    assert reference["language_share"]["shares"]["fr"] > 0.6
    assert sum(reference["brightness"]["counts"]) >= 260
    assert "Passed. Source: sample." in (raw / "validation_report.md").read_text()


def test_same_source_gives_the_same_bytes(
    project: Workspace, params: IngestParams, published: Path
) -> None:
    first = hashes(published)
    ingest(project, settings(), params)
    assert hashes(project.raw) == first


def test_new_product_changes_one_shard(
    project: Workspace, params: IngestParams, catalogue: Path
) -> None:
    ingest(project, settings(), params, source=str(catalogue))
    before = hashes(project.raw)
    photo = next((catalogue / "images" / "image_train").iterdir())
    photo.with_name("image_77_product_99.jpg").write_bytes(photo.read_bytes()[:-2] + b"\xff\xd9\0")
    edit(catalogue / TRAIN, lambda rows: rows.append(["270", "Nouveau livre", "", "99", "77"]))
    edit(catalogue / LABELS, lambda rows: rows.append(["270", "10"]))
    edit(catalogue / TEST, lambda rows: rows.pop(1))  # index 270 is taken now
    ingest(project, settings(), params, source=str(catalogue))
    after = hashes(project.raw)
    shards = [name for name in after if name.startswith("photos/")]
    assert sum(before.get(name) != after[name] for name in shards) <= 2


@pytest.mark.parametrize("layout", ["images folder", "images.zip", "flat images.zip", "published"])
def test_folder_in_each_layout_gives_the_same_data(
    project: Workspace, params: IngestParams, catalogue: Path, layout: str
) -> None:
    ingest(project, settings(), params, source=str(catalogue))
    first = hashes(project.raw)
    if layout == "images.zip":
        zip_images(catalogue)
    elif layout == "flat images.zip":
        (catalogue / "images").rename(catalogue / "pictures")
        with zipfile.ZipFile(catalogue / "images.zip", "w") as archive:
            for path in sorted((catalogue / "pictures").rglob("*.jpg")):
                archive.write(path, f"{path.parent.name}/{path.name}")
        shutil.rmtree(catalogue / "pictures")
    elif layout == "published":
        shutil.rmtree(catalogue)
        shutil.copytree(project.raw, catalogue)
    ingest(project, settings(), params, source=str(catalogue))
    assert hashes(project.raw) == first


@pytest.mark.parametrize("prefix", ["", "my catalogue/"], ids=["top", "sub folder"])
@pytest.mark.parametrize("nested", [False, True], ids=["images", "images.zip"])
def test_zip_is_imported(
    project: Workspace, params: IngestParams, catalogue: Path, prefix: str, nested: bool
) -> None:
    if nested:
        zip_images(catalogue)
    archive = zip_all(catalogue, project.root / "all.zip", prefix)
    assert ingest(project, settings(), params, source=str(archive)).labelled == 270
    assert (project.raw / "product_types.json").exists()
    assert not (project.downloads / ".scratch").exists()


def test_unlabelled_products_and_names_are_optional(
    project: Workspace, params: IngestParams, catalogue: Path
) -> None:
    (catalogue / TEST).unlink()
    (catalogue / "product_types.json").unlink()
    result = ingest(project, settings(), params, source=str(catalogue))
    assert result.unlabelled == 0
    assert not (project.raw / TEST).exists()


def break_columns(rows: list[list[str]]) -> None:
    rows[0][1] = "title"


def set_cell(row: int, column: int, value: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        rows[row][column] = value

    return change


def repeat_row(rows: list[list[str]]) -> None:
    rows.append(rows[5][:])


REFUSED = {
    "column": (TRAIN, break_columns, "Columns are missing", "no designation"),
    "type": (
        TRAIN,
        set_cell(3, 3, "12.0"),
        "must be whole numbers",
        "line 4, column productid: '12.0'",
    ),
    "id": (TRAIN, set_cell(3, 4, ""), "Ids or labels are missing", "line 4, column imageid: ''"),
    "label": (
        LABELS,
        set_cell(3, 1, "DVD"),
        "must be whole numbers",
        "line 4, column prdtypecode: 'DVD'",
    ),
    "no label": (LABELS, lambda rows: rows.pop(7), "without a label", "index: 6 has no label"),
    "foreign label": (
        LABELS,
        lambda rows: rows.append(["999", "10"]),
        "not in the products",
        "index: 999",
    ),
    "two labels": (LABELS, repeat_row, "more than one label", "column index: 4"),
    "two products": (TRAIN, repeat_row, "same productid", "first on line 6"),
    "fields": (
        TRAIN,
        lambda rows: rows[9].append("x"),
        "wrong number of fields",
        "line 10: 6 fields",
    ),
    "class size": (LABELS, set_cell(3, 1, "77"), "too few products", "prdtypecode: 77 has 1"),
    "empty": (
        TRAIN,
        lambda rows: rows.__delitem__(slice(1, None)),
        "at least two product types",
        "0 types",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_table_is_refused_by_place_and_old_data_stay(
    project: Workspace, params: IngestParams, catalogue: Path, published: Path, case: str
) -> None:
    name, change, rule, place = REFUSED[case]
    before = hashes(project.raw)
    edit(catalogue / name, change)
    with pytest.raises(DataValidationError) as caught:
        ingest(project, settings(), params, source=str(catalogue))
    assert rule in str(caught.value)
    assert place in str(caught.value)
    assert caught.value.exit_code == 2
    assert hashes(project.raw) == before
    report = json.loads((project.reports / "ingest" / "validation_report.json").read_text())
    assert not report["passed"]
    assert "Refused" in (project.reports / "ingest" / "validation_report.md").read_text()
    assert [path.name for path in project.raw.parent.glob(".raw*")] == []


def test_all_kinds_of_faults_are_named_in_one_run(
    project: Workspace, params: IngestParams, catalogue: Path
) -> None:
    edit(catalogue / TRAIN, set_cell(3, 3, "x"))
    edit(catalogue / LABELS, set_cell(9, 1, ""))
    edit(catalogue / TEST, break_columns)
    for path in list((catalogue / "images" / "image_train").iterdir())[:200]:
        path.unlink()
    with pytest.raises(DataValidationError) as caught:
        ingest(project, settings(), params, source=str(catalogue))
    text = str(caught.value)
    for rule in ("whole numbers", "are missing", "Columns", "photo is missing", "more"):
        assert rule in text


def test_first_offenders_are_shown_and_the_rest_counted(
    project: Workspace, params: IngestParams, catalogue: Path
) -> None:
    def change(rows: list[list[str]]) -> None:
        for row in rows[1:40]:
            row[3] = "x" * 500

    edit(catalogue / TRAIN, change)
    limited = params.model_copy(update={"validation": ValidationParams(max_offenders_shown=2)})
    with pytest.raises(DataValidationError) as caught:
        ingest(project, settings(), limited, source=str(catalogue))
    assert "39 found" in str(caught.value)
    assert "... and 37 more" in str(caught.value)
    assert "x" * 100 not in str(caught.value)


def test_empty_descriptions_beyond_the_threshold_are_refused(
    project: Workspace, params: IngestParams, catalogue: Path
) -> None:
    strict = params.model_copy(
        update={"validation": ValidationParams(max_empty_descriptions_fraction=0.1)}
    )
    with pytest.raises(DataValidationError, match="no description"):
        ingest(project, settings(), strict, source=str(catalogue))


def test_bad_photos_are_counted_up_to_the_threshold_and_left_out(
    project: Workspace, params: IngestParams, catalogue: Path
) -> None:
    first, second, *_ = sorted((catalogue / "images" / "image_train").iterdir())
    first.write_bytes(first.read_bytes()[:2000])
    second.write_bytes(b"")
    result = ingest(project, settings(), params, source=str(catalogue))
    assert result.warnings >= 2
    photos = PhotoStore(project.raw / "photos")
    assert first.name not in photos
    assert second.name not in photos
    photos.close()
    report = (project.raw / "validation_report.md").read_text()
    assert "photo can't be used" in report
    strict = params.model_copy(
        update={"validation": ValidationParams(max_bad_photos_fraction=0.001)}
    )
    with pytest.raises(DataValidationError, match="photos are bad"):
        ingest(project, settings(), strict, source=str(catalogue))


def test_text_that_is_not_utf8_is_refused(
    project: Workspace, params: IngestParams, catalogue: Path
) -> None:
    (catalogue / TRAIN).write_bytes((catalogue / TRAIN).read_bytes() + "é".encode("latin-1"))
    with pytest.raises(DataValidationError, match="not UTF-8 CSV"):
        ingest(project, settings(), params, source=str(catalogue))


@pytest.mark.parametrize("content", ["[]", '{"10": 3}', "no json"])
def test_bad_names_file_is_refused(
    project: Workspace, params: IngestParams, catalogue: Path, content: str
) -> None:
    (catalogue / "product_types.json").write_text(content)
    with pytest.raises(DataValidationError, match="Type names must be JSON"):
        ingest(project, settings(), params, source=str(catalogue))


@pytest.mark.parametrize(
    "source", ["nowhere", "ftp://host/x", "", "https://", "s3:///key", "params.yaml"]
)
def test_unknown_source_is_a_configuration_error(
    project: Workspace, params: IngestParams, source: str
) -> None:
    with pytest.raises(ConfigurationError, match="Expected sample, rakuten, a folder"):
        ingest(project, settings(data_source=source), params)


def test_folder_without_catalogue_is_refused(
    project: Workspace, params: IngestParams, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataValidationError, match="There is no X_train_update.csv"):
        ingest(project, settings(), params, source=str(tmp_path / "empty"))


def test_two_imports_at_once_are_refused(project: Workspace, params: IngestParams) -> None:
    import fcntl

    (project.root / "data").mkdir()
    with (project.root / "data" / ".ingest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ProductClassifierError, match="Another ingest runs"):
            ingest(project, settings(), params)


def test_data_path_becomes_a_folder_of_links_to_the_import(
    project: Workspace, params: IngestParams
) -> None:
    for _ in range(2):
        ingest(project, settings(data_path="datasets/here"), params)
    folder = project.root / "datasets" / "here"
    assert os.readlink(folder / TRAIN) == f"../../data/raw/{TRAIN}"
    assert {link.name for link in folder.iterdir()} == {p.name for p in project.raw.iterdir()}
    assert (folder / TRAIN).read_bytes() == (project.raw / TRAIN).read_bytes()


def test_files_that_lie_at_data_path_are_left_alone(
    project: Workspace, params: IngestParams, caplog: pytest.LogCaptureFixture
) -> None:
    (project.root / "mine").mkdir()
    (project.root / "mine" / "note.txt").write_text("keep")
    (project.root / "mine" / TRAIN).write_text("keep")
    ingest(project, settings(data_path="mine"), params)
    assert (project.root / "mine" / "note.txt").read_text() == "keep"
    assert (project.root / "mine" / TRAIN).read_text() == "keep"
    assert "is left alone" in caplog.text
    assert (project.root / "mine" / "splits.json").is_symlink()


@pytest.mark.parametrize("path", ["data/raw", "data/raw/inside"])
def test_data_path_never_adds_to_the_versioned_folder(
    project: Workspace, params: IngestParams, path: str
) -> None:
    ingest(project, settings(data_path=path), params)
    assert not any(entry.is_symlink() for entry in project.raw.rglob("*"))


def serve_catalogue(server: FileServer, catalogue: Path, prefix: str) -> None:
    zip_images(catalogue)
    for path in catalogue.iterdir():
        server.files[f"{prefix}/{path.name}"] = path.read_bytes()


def test_rakuten_is_replayed_from_its_file_names(
    project: Workspace, params: IngestParams, catalogue: Path, server: FileServer
) -> None:
    (catalogue / "product_types.json").unlink()
    serve_catalogue(server, catalogue, "/datasets/rakuten/resolve/main")
    where = settings(
        data_source="rakuten", rakuten_base_url=f"{server.url}/datasets/rakuten/resolve/main"
    )
    result = ingest(project, where, params, rakuten_rows=(270, 27))
    assert result.labelled == 270
    names = json.loads((project.raw / "product_types.json").read_text())
    assert names["2583"]["fr"] == "Piscine et accessoires"
    asked = {path.rpartition("/")[2] for method, path, _ in server.requests if method == "GET"}
    assert asked == {TRAIN, LABELS, TEST, "images.zip", "product_types.json"}


def test_rakuten_must_have_its_published_row_counts(
    project: Workspace, params: IngestParams, catalogue: Path, server: FileServer
) -> None:
    serve_catalogue(server, catalogue, "/r")
    where = settings(data_source="rakuten", rakuten_base_url=f"{server.url}/r")
    with pytest.raises(DataValidationError) as caught:
        ingest(project, where, params)
    assert "270 rows that can be read, expected 84916" in str(caught.value)
    assert "27 rows that can be read, expected 13812" in str(caught.value)


def test_http_prefix_keeps_its_query_and_is_fetched_once(
    project: Workspace, params: IngestParams, catalogue: Path, server: FileServer
) -> None:
    serve_catalogue(server, catalogue, "/c")
    source = f"{server.url}/c/?token=hunter2"
    first = ingest(project, settings(), params, source=source)
    server.requests.clear()
    second = ingest(project, settings(), params, source=source.replace("hunter2", "other"))
    assert first.labelled == second.labelled
    assert all("if-none-match" in headers for headers in server.gets("/c/images.zip"))
    kept = "".join(
        path.read_text(errors="replace") for path in (project.root / "data").rglob("*.json")
    )
    assert "hunter2" not in kept


def test_http_zip_is_imported(
    project: Workspace, params: IngestParams, catalogue: Path, server: FileServer
) -> None:
    server.files["/all.zip"] = zip_all(catalogue, project.root / "all.zip", "x/").read_bytes()
    assert ingest(project, settings(), params, source=f"{server.url}/all.zip").labelled == 270


def test_missing_required_file_is_named(
    project: Workspace, params: IngestParams, catalogue: Path, server: FileServer
) -> None:
    serve_catalogue(server, catalogue, "/c")
    del server.files["/c/images.zip"]
    with pytest.raises(SourceError, match="there is no images.zip"):
        ingest(project, settings(), params, source=f"{server.url}/c")


def test_page_instead_of_zip_is_forgotten_and_fetched_anew(
    project: Workspace, params: IngestParams, catalogue: Path, server: FileServer
) -> None:
    serve_catalogue(server, catalogue, "/c")
    good = server.files["/c/images.zip"]
    server.files["/c/images.zip"] = b"<html>Please log in</html>"
    with pytest.raises(SourceError, match="no complete zip"):
        ingest(project, settings(), params, source=f"{server.url}/c")
    server.files["/c/images.zip"] = good
    assert ingest(project, settings(), params, source=f"{server.url}/c").labelled == 270


def test_offline_import_uses_the_verified_download(
    project: Workspace,
    params: IngestParams,
    catalogue: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from file_server import running_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        with running_server() as server:
            serve_catalogue(server, catalogue, "/c")
            source = f"{server.url}/c"
            ingest(project, settings(), params, source=source)
        first = hashes(project.raw)
        ingest(project, settings(), params, source=source)
    assert hashes(project.raw) == first
    assert "using the intact earlier download" in caplog.text


def test_sample_parameters_change_the_data(
    project: Workspace, params: IngestParams, published: Path
) -> None:
    first = hashes(published)
    other = params.model_copy(update={"sample": SampleParams(products=270, unlabelled=27, seed=4)})
    ingest(project, settings(), other)
    assert hashes(project.raw)[TRAIN] != first[TRAIN]
