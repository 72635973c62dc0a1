import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from product_classifier.core.errors import ArtifactError
from product_classifier.features.photos import PhotoStore, shard_of, write_shard

PHOTOS = {f"image_{n}_product_{n}.jpg": bytes([n]) * (n + 1) * 100 for n in range(40)}


def test_equal_photos_make_equal_shards(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.zip", PHOTOS)
    write_shard(tmp_path / "b.zip", dict(reversed(PHOTOS.items())))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_photos_are_spread_evenly_and_always_alike() -> None:
    counts = Counter(shard_of(f"image_{n}_product_{n}.jpg", 8) for n in range(4000))
    assert set(counts) == set(range(8))
    assert min(counts.values()) > 400
    assert shard_of("image_1_product_1.jpg", 64) == 25


@pytest.fixture(params=["folder", "nested folder", "zip", "shards"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PhotoStore:
    root = tmp_path / "photos"
    root.mkdir()
    if request.param == "zip":
        with zipfile.ZipFile(root / "images.zip", "w") as archive:
            for name, content in PHOTOS.items():
                archive.writestr(f"images/image_train/{name}", content)
            archive.writestr("__MACOSX/images/._image_1_product_1.jpg", b"no photo")
            archive.writestr("images/read me.txt", b"no photo")
        return PhotoStore(root / "images.zip")
    if request.param == "shards":
        for shard in range(4):
            part = {name: data for name, data in PHOTOS.items() if shard_of(name, 4) == shard}
            write_shard(root / f"shard-{shard:02d}.zip", part)
        return PhotoStore(root)
    folder = root / "a" / "b" if request.param == "nested folder" else root
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text("no photo")
    for name, content in PHOTOS.items():
        (folder / name).write_bytes(content)
    return PhotoStore(root)


def test_every_layout_gives_the_same_photos(store: PhotoStore) -> None:
    assert len(store) == 40
    assert store.names() == sorted(PHOTOS)
    assert {name: store.read(name) for name in PHOTOS} == PHOTOS
    assert "image_0_product_0.jpg" in store
    assert "read me.txt" not in store
    assert store.read("image_99_product_99.jpg") is None
    store.close()


def test_threads_read_without_mixing_photos(store: PhotoStore) -> None:
    names = list(PHOTOS) * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(store.read, names)) == [PHOTOS[name] for name in names]
    store.close()


@pytest.mark.parametrize("content", [None, b"", b"no zip at all"])
def test_what_holds_no_photos_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"images\.zip"):
        PhotoStore(path)


def test_damaged_member_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard-00.zip", PHOTOS)
    data = bytearray((tmp_path / "shard-00.zip").read_bytes())
    at = data.index(PHOTOS["image_30_product_30.jpg"])
    data[at] ^= 0xFF
    (tmp_path / "shard-00.zip").write_bytes(data)
    store = PhotoStore(tmp_path)
    with pytest.raises(ArtifactError, match=r"image_30_product_30\.jpg"):
        store.read("image_30_product_30.jpg")
    store.close()


def test_empty_folder_holds_no_photos(tmp_path: Path) -> None:
    assert len(PhotoStore(tmp_path)) == 0
