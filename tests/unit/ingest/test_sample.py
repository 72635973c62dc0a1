"""The generated catalogue: sizes, variety, and the same bytes each time."""

import csv
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from product_classifier.core.catalogue import Product, load_labels, load_products
from product_classifier.core.files import sha256_file
from product_classifier.core.params import SampleParams
from product_classifier.features.images import decode_photo
from product_classifier.ingest.sample import RAKUTEN_COUNTS, apportion, generate, write_sample

EXIF_ORIENTATION = 0x0112
Generated = tuple[Product, int, bytes | None]


@pytest.fixture(scope="module")
def default_sample() -> list[Generated]:
    return list(generate(SampleParams()))


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_default_sizes_follow_rakuten_with_at_least_20_of_each_type() -> None:
    sizes = apportion(1600, 20)
    assert sum(sizes.values()) == 1600
    assert min(sizes.values()) == 20
    assert set(sizes) == set(RAKUTEN_COUNTS)
    assert max(sizes, key=lambda code: sizes[code]) == 2583
    assert sizes[2583] > 8 * sizes[2905]


@pytest.mark.parametrize("total", [1, 27, 240, 270, 271, 5000])
def test_apportion_adds_up(total: int) -> None:
    assert sum(apportion(total, 0).values()) == total


def test_another_process_generates_the_same_bytes(tmp_path: Path) -> None:
    params = SampleParams(products=270, unlabelled=5, seed=11)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    write_sample(tmp_path / "here", params)
    code = (
        "import sys; from pathlib import Path; from product_classifier.core.params import *\n"
        "from product_classifier.ingest.sample import write_sample\n"
        "write_sample(Path(sys.argv[1]), SampleParams(products=270, unlabelled=5, seed=11))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "there")],
        check=True,
        env={"PYTHONHASHSEED": "77"},
    )
    assert hashes(tmp_path / "here") == hashes(tmp_path / "there")


def test_another_seed_generates_other_products() -> None:
    first, second = (
        next(iter(generate(SampleParams(products=270, unlabelled=1, seed=seed)))) for seed in (1, 2)
    )
    assert first != second


def test_tables_are_consistent_and_ids_unique(catalogue: Path) -> None:
    labelled = load_products(catalogue / "X_train_update.csv")
    unlabelled = load_products(catalogue / "X_test_update.csv")
    labels = load_labels(catalogue / "Y_train_CVw08PX.csv")
    assert [product.row for product in labelled] == list(range(270)) == sorted(labels)
    assert [product.row for product in unlabelled] == list(range(270, 297))
    assert set(labels.values()) == set(RAKUTEN_COUNTS)
    for ids in ("product_id", "image_id"):
        assert len({getattr(product, ids) for product in labelled + unlabelled}) == 297


def test_text_is_as_messy_as_a_real_catalogue(default_sample: list[Generated]) -> None:
    products = [product for product, _, _ in default_sample]
    empty = sum(not product.description for product in products) / len(products)
    assert 0.28 < empty < 0.42
    text = "\n".join(f"{product.title} {product.description}" for product in products)
    assert "&#233;" in text
    assert "&amp;#233;" in text
    assert "<br />" in text
    assert " für " in text
    assert "brand new" in text


def test_photos_come_as_jpeg_png_cmyk_turned_and_missing(
    default_sample: list[Generated],
) -> None:
    kinds: Counter[str] = Counter()
    for _, _, photo in default_sample:
        if photo is None:
            kinds["missing"] += 1
            continue
        picture = Image.open(io.BytesIO(photo))
        kinds[picture.format or ""] += 1
        kinds[picture.mode] += 1
        kinds["turned"] += picture.getexif().get(EXIF_ORIENTATION, 1) != 1
        assert decode_photo(photo).size == (300, 300)
    assert kinds["JPEG"] > 1600
    assert min(kinds[kind] for kind in ("PNG", "CMYK", "turned", "missing")) >= 3


def test_csv_is_rfc_4180_utf8(catalogue: Path) -> None:
    with (catalogue / "X_train_update.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file, strict=True))
    assert header == ["", "designation", "description", "productid", "imageid"]
    assert len(rows) == 270
