import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from product_classifier.core import bundle as names
from product_classifier.core.bundle import (
    DriftReference,
    content_id,
    describe_files,
    load_bundle,
    read_manifest,
)
from product_classifier.core.errors import ArtifactError

MakeBundle = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, make_bundle: MakeBundle) -> Path:
    return make_bundle(tmp_path / "bundle")


def change_manifest(folder: Path, **values: Any) -> None:
    path = folder / names.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_sound_bundle_loads(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.manifest.labels == [10, 40]
    assert bundle.bundle_id == bundle.manifest.content_id[:16]
    assert bundle.file(names.TEXT_NETWORK) == folder / "inference" / "text.xml"


NUMBERS = {"edges": [1.0], "counts": [10, 10], "chance": [[50, 0.5]]}
DRIFT = {
    "products": 20,
    "features": {"aspect": NUMBERS},
    "missing": {"title": 0.0, "description": 0.5, "photo": 0.0},
    "answered": 20,
    "confidence_mean": 0.9,
    "confidence_deviation": 0.1,
}


def with_drift(folder: Path, feature: dict[str, Any]) -> DriftReference | None:
    change_manifest(folder, drift={**DRIFT, "features": {"aspect": {**NUMBERS, **feature}}})
    return read_manifest(folder).drift


@pytest.mark.parametrize(
    ("feature", "bins"),
    [
        ({}, 2),
        ({"edges": None, "categories": {"a": 0, "b": 2, "c": 1}, "counts": [1, 0, 3]}, 3),
    ],
    ids=["numbers", "categories"],
)
def test_a_drift_reference_has_a_count_for_each_bin(
    folder: Path, feature: dict[str, Any], bins: int
) -> None:
    reference = with_drift(folder, feature)
    assert reference is not None
    assert reference.features["aspect"].size == bins


@pytest.mark.parametrize(
    "feature",
    [
        {"counts": [10]},
        {"counts": [10, -1]},
        {"edges": None},
        {"categories": {"a": 0, "b": 1}},
        {"edges": None, "categories": {"a": -1, "b": 1}},
        {"chance": []},
        {"chance": [[0, 0.5]]},
    ],
    ids=["few", "negative", "neither", "both", "before the first", "no chance", "no size"],
)
def test_a_drift_reference_that_no_request_could_be_held_against_is_refused(
    folder: Path, feature: dict[str, Any]
) -> None:
    with pytest.raises(ArtifactError, match="aspect"):
        with_drift(folder, feature)


def test_every_file_but_the_manifest_is_described(folder: Path) -> None:
    described = describe_files(folder)
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(described) == on_disk - {names.MANIFEST}
    assert described[names.MAPPER].size == (folder / names.MAPPER).stat().st_size
    assert len(described[names.MAPPER].sha256) == 64


@pytest.mark.parametrize("damage", ["missing", "truncated", "grown", "one bit", "a folder"])
def test_each_damaged_file_is_named(folder: Path, damage: str, tmp_path: Path) -> None:
    for name in describe_files(folder):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        file = copy / name
        content = file.read_bytes()
        if damage == "missing":
            file.unlink()
        elif damage == "truncated":
            file.write_bytes(content[:-1])
        elif damage == "grown":
            file.write_bytes(content + b"\0")
        elif damage == "one bit":
            file.write_bytes(content[:7] + bytes([content[7] ^ 1]) + content[8:])
        else:
            file.unlink()
            file.mkdir()
        with pytest.raises(ArtifactError, match=f"damaged: {name} [^;]*$"):
            load_bundle(copy)
        shutil.rmtree(copy)


def test_all_damage_is_told_at_once(folder: Path) -> None:
    (folder / names.MAPPER).unlink()
    (folder / names.TOKENIZER).write_bytes(b"")
    with pytest.raises(
        ArtifactError, match=r"mapper.json is missing; tokenizer_config.json has 0 bytes"
    ):
        load_bundle(folder)


@pytest.mark.parametrize("version", [0, 2, None, "1", [1]])
def test_another_schema_version_is_refused(folder: Path, version: object) -> None:
    change_manifest(folder, schema_version=version)
    with pytest.raises(ArtifactError, match=r"schema version .* Expected 1"):
        load_bundle(folder)


def test_a_manifest_off_its_schema_is_refused(folder: Path) -> None:
    for change, message in (
        ({"extra": 1}, "extra"),
        ({"labels": ["ten"]}, "labels"),
        ({"backbone": {}}, "backbone"),
        ({"thresholds": {"target_precision": 0.9, "auto_from": {}, "more": 1}}, "more"),
        ({"files": {"a": {"sha256": "0"}}}, "size"),
    ):
        original = (folder / names.MANIFEST).read_bytes()
        change_manifest(folder, **change)
        with pytest.raises(ArtifactError, match=message):
            read_manifest(folder)
        (folder / names.MANIFEST).write_bytes(original)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"'])
def test_a_manifest_that_is_no_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / names.MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load_bundle(folder)


def test_no_bundle_at_all_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArtifactError, match="There is no bundle at"):
            load_bundle(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="There is no bundle at"):
        load_bundle(tmp_path / "file")
    (tmp_path / names.MANIFEST).mkdir()
    with pytest.raises(ArtifactError, match="can't be read"):
        load_bundle(tmp_path)


def test_a_file_that_the_manifest_does_not_list_is_not_given(folder: Path) -> None:
    bundle = load_bundle(folder)
    (folder / "more.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"has no more\.json. It has: .*mapper"):
        bundle.file("more.json")


def test_a_moving_symlink_can_not_mix_two_bundles(tmp_path: Path, make_bundle: MakeBundle) -> None:
    first, second = make_bundle(tmp_path / "a", "a"), make_bundle(tmp_path / "b", "b")
    link = tmp_path / "champion"
    link.symlink_to("a")
    bundle = load_bundle(link)
    link.unlink()
    link.symlink_to("b")
    assert bundle.file(names.MAPPER) == first / names.MAPPER
    assert load_bundle(link).path == second


def test_content_id_depends_on_content_alone() -> None:
    weights, documents = {"text": "a", "image": "b"}, {"mapper": {"0": 10}, "t": 0.5}
    one = content_id(weights, documents)
    assert len(one) == 64
    assert one == content_id(dict(reversed(weights.items())), dict(reversed(documents.items())))
    assert one != content_id({**weights, "text": "c"}, documents)
    assert one != content_id(weights, {**documents, "t": 0.5000000001})
    assert one != content_id(documents, weights)
