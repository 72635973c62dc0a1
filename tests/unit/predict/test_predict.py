"""Batch prediction with a real bundle, from products to published files."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from scoring_helpers import PARAMS, SETTINGS, as_csv, cells, files_of

from product_classifier.core.catalogue import Product
from product_classifier.core.errors import (
    ArtifactError,
    ConfigurationError,
    DataValidationError,
    ProductClassifierError,
)
from product_classifier.core.files import read_json
from product_classifier.core.locks import only_one
from product_classifier.core.params import PredictParams
from product_classifier.core.releases import current_champion
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, Workspace
from product_classifier.features.photos import PhotoStore
from product_classifier.predict.checkpoints import ChunkStore, Shard
from product_classifier.predict.job import Request
from product_classifier.predict.predict import merge_parts, predict, predict_shard

COMMAND = [str(Path(sys.executable).with_name("product-classifier")), "predict"]


def score(workspace: Workspace, **request: Any) -> dict[str, Any]:
    return predict(workspace, SETTINGS, PARAMS, Request(**request))


def write(path: Path, rows: list[list[object]], more: str = "") -> Path:
    path.write_text(as_csv(rows) + more, encoding="utf-8")
    return path


def table(workspace: Workspace) -> list[dict[str, str]]:
    import csv

    with (workspace.predictions / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_product_gets_an_answer(ready: Workspace, products: list[Product]) -> None:
    summary = score(ready)
    codes = read_json(ready.predictions / "predictions.json")
    assert list(codes) == [str(product.row) for product in products]
    labels = read_json(ready.champion / "manifest.json")["labels"]
    assert set(codes.values()) <= set(labels)
    assert (summary["products"], summary["errors"]) == (len(products), 0)
    champion = current_champion(ready)
    assert champion is not None
    assert summary["bundle_id"] == champion.release_id
    assert {row["bundle_id"] for row in table(ready)} == {champion.release_id}


def test_same_input_and_bundle_give_the_same_bytes(ready: Workspace) -> None:
    score(ready)
    first = files_of(ready.predictions)
    score(ready)
    assert files_of(ready.predictions) == first
    assert str(ready.root) not in "".join(content.decode() for content in first.values())


def test_size_of_chunks_changes_nothing(ready: Workspace) -> None:
    score(ready)
    first = files_of(ready.predictions)
    predict(ready, SETTINGS, PredictParams(chunk_products=7), Request())
    assert files_of(ready.predictions) == first


def test_nothing_is_left_behind(ready: Workspace) -> None:
    score(ready)
    assert files_of(ready.cache / "predict") == {}
    assert [path.name for path in ready.predictions.parent.glob(".predictions*")] == []


def test_shards_folder_and_zip_of_photos_give_the_same_answers(
    ready: Workspace, tmp_path: Path
) -> None:
    score(ready)
    first = files_of(ready.predictions)
    store, folder = PhotoStore(ready.raw / "photos"), tmp_path / "photos"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in store.names():
            data = store.read(name) or b""
            (folder / name).write_bytes(data)
            archive.writestr(f"images/image_test/{name}", data)
    store.close()
    for images in (folder, tmp_path / "photos.zip"):
        score(ready, images=images)
        assert files_of(ready.predictions) == first


def test_no_row_is_lost(ready: Workspace, products: list[Product], tmp_path: Path) -> None:
    store, photos = PhotoStore(ready.raw / "photos"), tmp_path / "photos"
    photos.mkdir()
    with_photo = [product for product in products if product.photo_name in store]
    good, broken, alone, bare = with_photo[:4]
    for product in (good, alone):
        (photos / product.photo_name).write_bytes(store.read(product.photo_name) or b"")
    store.close()
    for product in (broken, bare):
        (photos / product.photo_name).write_bytes(b"\xff\xd8 no photo")
    dataset = write(
        tmp_path / "products.csv",
        [
            cells(good),
            ["x", "a title", "", 1, 2],
            [90, "a title", "", "one", 2],
            cells(broken),
            [91, "", "", alone.product_id, alone.image_id],
            [92, "", " <br> ", bare.product_id, bare.image_id],
            [93, "", "", 1, 2],
            [94, "a title", "", 1, 2],
            cells(good),
        ],
        more="95,too,few\n",
    )
    summary = score(ready, dataset=dataset, images=photos)
    rows = table(ready)
    assert [(row["row"], row["modalities"]) for row in rows] == [
        (str(good.row), "text+image"),
        ("", ""),
        ("90", ""),
        (str(broken.row), "text"),
        ("91", "image"),
        ("92", ""),
        ("93", ""),
        ("94", "text"),
        ("", ""),
        ("", ""),
    ]
    assert [bool(row["error"]) for row in rows] == [bool(not row["modalities"]) for row in rows]
    assert "damaged" in rows[3]["photo_error"] or "none of" in rows[3]["photo_error"]
    assert rows[5]["error"] == "There is neither text nor a usable photo."
    assert rows[7]["photo_error"] == "There is no photo image_2_product_1.jpg."
    assert (summary["products"], summary["scored"], summary["errors"]) == (10, 4, 6)
    codes = read_json(ready.predictions / "predictions.json")
    assert list(codes) == [str(good.row), str(broken.row), "91", "94"]


def test_photo_that_its_archive_can_not_give_is_told_and_text_decides(
    ready: Workspace, products: list[Product], tmp_path: Path
) -> None:
    archive = tmp_path / "photos.zip"
    names = [product.photo_name for product in products if product.title][:2]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(archive, "w", method) as writer:
            for name in names:
                writer.writestr(name, b"pixels" * 2000)
        data = bytearray(archive.read_bytes())
        start = 30 + len(names[0])
        data[start : start + 20] = b"\xff" * 20
        archive.write_bytes(data)
        score(ready, images=archive)
        [row] = [row for row in table(ready) if row["photo_error"].startswith(f"Photo {names[0]}")]
        assert (row["modalities"], row["error"]) == ("text", "")


def test_errors_are_logged_with_lines_and_count(
    ready: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = write(tmp_path / "x.csv", [["x", "a", "", 1, 2], [1, "a", "", 1, 2]])
    score(ready, dataset=dataset)
    assert "Line 2 has no prediction. Column index" in caplog.text
    assert "1 of 2 products have no prediction" in caplog.text


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe", "index;é".encode("latin-1")])
def test_file_that_is_no_products_file_is_refused_and_old_predictions_stay(
    ready: Workspace, tmp_path: Path, content: bytes
) -> None:
    score(ready)
    before = files_of(ready.predictions)
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataValidationError, match="x.csv") as caught:
        score(ready, dataset=tmp_path / "x.csv")
    assert caught.value.exit_code == 2
    assert files_of(ready.predictions) == before


def test_settings_change_what_is_scored_and_where_a_copy_goes(
    ready: Workspace, products: list[Product], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(ready.root / "mine.csv", [cells(product) for product in products[:3]])
    (ready.root / "pictures").mkdir()
    monkeypatch.setenv("DATASET_PATH", "mine.csv")
    monkeypatch.setenv("IMAGES_PATH", "pictures")
    monkeypatch.setenv("PREDICTIONS_PATH", "out/mine.json")
    summary = predict(ready, Settings(_env_file=None), PARAMS, Request())  # type: ignore[call-arg]
    assert (summary["products"], summary["dataset"]) == (3, "mine.csv")
    assert "text+image" not in summary["modalities"]
    assert len(read_json(ready.root / "out" / "mine.json")) == summary["scored"]


def test_catalogue_without_unlabelled_products_gives_valid_empty_predictions(
    ready: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    (ready.raw / TEST_FILE).unlink()
    assert score(ready)["products"] == 0
    assert read_json(ready.predictions / "predictions.json") == {}
    assert "there is nothing to score" in caplog.text
    assert predict_shard(ready, SETTINGS, PARAMS, Request(), Shard(1, 2)) is None


def test_file_without_rows_gives_valid_empty_predictions(ready: Workspace, tmp_path: Path) -> None:
    assert score(ready, dataset=write(tmp_path / "x.csv", []))["products"] == 0
    assert table(ready) == []


def test_missing_catalogue_is_refused(ready: Workspace) -> None:
    shutil.rmtree(ready.raw)
    with pytest.raises(DataValidationError, match="Run `product-classifier ingest`"):
        score(ready)


# Bundle


def test_missing_champion_is_refused(ready: Workspace) -> None:
    shutil.rmtree(ready.models)
    with pytest.raises(ConfigurationError, match="There is no champion yet"):
        score(ready)


@pytest.mark.parametrize("name", ["candidate", "champion", "id"])
def test_bundle_can_be_named_by_folder_or_release(ready: Workspace, name: str) -> None:
    champion = current_champion(ready)
    assert champion is not None
    wanted = champion.release_id[:6] if name == "id" else str(ready.models / name)
    assert score(ready, bundle=wanted)["bundle_id"] == champion.release_id


def test_unknown_bundle_is_refused(ready: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="Expected the id of one release"):
        score(ready, bundle="ffff")


def test_damaged_bundle_is_refused(ready: Workspace) -> None:
    network = ready.champion.resolve() / "inference" / "text.bin"
    data = bytearray(network.read_bytes())
    network.unlink()  # a link of this test only
    data[100] ^= 1
    network.write_bytes(data)
    with pytest.raises(ArtifactError, match="text.bin has sha256") as caught:
        score(ready)
    assert caught.value.exit_code == 1


def test_champion_that_moves_meanwhile_is_not_mixed_in(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(ready)
    first = files_of(ready.predictions)
    save = ChunkStore.save

    def save_and_move(store: ChunkStore, *what: Any) -> None:
        save(store, *what)
        ready.champion.unlink(missing_ok=True)
        ready.champion.symlink_to("releases/of-somebody-else")

    monkeypatch.setattr(ChunkStore, "save", save_and_move)
    score(ready)
    assert files_of(ready.predictions) == first


# Shards


def test_shards_together_are_a_whole_run_byte_for_byte(ready: Workspace) -> None:
    score(ready)
    whole = files_of(ready.predictions)
    shutil.rmtree(ready.predictions)
    for number in (3, 1, 2):
        assert predict_shard(ready, SETTINGS, PARAMS, Request(), Shard(number, 3)) is not None
    assert not ready.predictions.exists()
    merge_parts(ready, SETTINGS, Request(), 3)
    assert files_of(ready.predictions) == whole


def test_more_shards_than_products_are_fine(
    ready: Workspace, products: list[Product], tmp_path: Path
) -> None:
    request = Request(write(tmp_path / "x.csv", [cells(products[0])]))
    for number in (1, 2):
        predict_shard(ready, SETTINGS, PARAMS, request, Shard(number, 2))
    assert merge_parts(ready, SETTINGS, request, 2)["products"] == 1


def test_merge_without_all_parts_names_the_missing_ones(ready: Workspace) -> None:
    predict_shard(ready, SETTINGS, PARAMS, Request(), Shard(2, 3))
    with pytest.raises(ArtifactError, match=r"part-1-of-3.json, part-3-of-3.json") as caught:
        merge_parts(ready, SETTINGS, Request(), 3)
    assert caught.value.exit_code == 1
    assert not ready.predictions.exists()


def test_merge_can_be_repeated_and_clears_parts_of_earlier_products(ready: Workspace) -> None:
    parts = ready.root / "data" / "predictions.parts"
    (parts / "earlier").mkdir(parents=True)
    predict_shard(ready, SETTINGS, PARAMS, Request(), Shard(1, 1))
    for _ in range(2):
        merge_parts(ready, SETTINGS, Request(), 1)
    assert not (parts / "earlier").exists()


def test_merge_takes_no_parts_of_other_products(
    ready: Workspace, products: list[Product], tmp_path: Path
) -> None:
    predict_shard(ready, SETTINGS, PARAMS, Request(), Shard(1, 1))
    request = Request(write(tmp_path / "x.csv", [cells(products[0])]))
    with pytest.raises(ArtifactError, match="part-1-of-1.json"):
        merge_parts(ready, SETTINGS, request, 1)


def test_merge_of_no_shards_is_refused(ready: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="--merge"):
        merge_parts(ready, SETTINGS, Request(), 0)


def test_two_runs_at_once_are_refused(ready: Workspace) -> None:
    with (
        only_one(ready.root / "data" / ".predict.lock", "batch prediction"),
        pytest.raises(ProductClassifierError, match="Another batch prediction"),
    ):
        score(ready)


# The command


def run(workspace: Workspace, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments], cwd=workspace.root, capture_output=True, text=True, timeout=400
    )


def test_command_scores_shards_and_merges(ready: Workspace) -> None:
    for number in (1, 2):
        assert run(ready, "--shard", f"{number}/2").returncode == 0
    done = run(ready, "--merge", "2")
    assert (done.returncode, "products: " in done.stdout) == (0, True)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {event["stage"] for event in events} <= {"predict"}
    assert run(ready, "--merge", "3").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--shard", "3/2"),
        ("--shard", "1/2", "--merge", "2"),
        ("--dataset", "nowhere.csv"),
        ("--bundle", "nowhere"),
    ],
    ids=" ".join,
)
def test_command_ends_with_2_on_bad_arguments(ready: Workspace, arguments: tuple[str, ...]) -> None:
    done = run(ready, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr


def test_batch_prediction_loads_no_tensorflow() -> None:
    program = (
        "import sys, product_classifier.predict.predict, product_classifier.predict.probe;"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=240).returncode == 0


def test_run_killed_again_and_again_ends_with_the_same_bytes(
    ready: Workspace, products: list[Product], tmp_path: Path
) -> None:
    many = [cells(product, i * 1000 + product.row) for i in range(12) for product in products]
    dataset = write(tmp_path / "many.csv", many)
    score(ready, dataset=dataset)
    whole = files_of(ready.predictions)
    shutil.rmtree(ready.predictions)
    finished = 0
    for _ in range(3):
        process = subprocess.Popen(
            [*COMMAND, "--dataset", str(dataset)], cwd=ready.root, stdout=subprocess.DEVNULL
        )
        while (found := len(list((ready.cache / "predict").rglob("chunk-*.json")))) <= finished:
            assert process.poll() is None
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = found
    assert not ready.predictions.exists()
    done = run(ready, "--dataset", str(dataset))
    assert done.returncode == 0, done.stdout
    assert "Going on after" in done.stdout
    assert files_of(ready.predictions) == whole
