"""Trainings on the small catalogue, in this process; `trained_workspace` is the plain one."""

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from product_classifier.core import bundle as names
from product_classifier.core.bundle import load_bundle, read_manifest
from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.core.params import ImageParams, TrainParams, load_params
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace
from product_classifier.features.photos import PhotoStore
from product_classifier.modeling.export import hash_weights
from product_classifier.train import branches as branches_module
from product_classifier.train import candidate as candidate_module
from product_classifier.train import photo_features
from product_classifier.train.branches import Branches, train_branches
from product_classifier.train.candidate import Fitted, write_candidate
from product_classifier.train.dataset import Dataset, load_dataset
from product_classifier.train.determinism import make_deterministic
from product_classifier.train.photo_features import PhotoIndex, compute_features, index_photos
from product_classifier.train.probe import reused_branches
from product_classifier.train.text_branch import fitting_length, split_fields, train_text_branch
from product_classifier.train.train import TrainResult, fit, fuse_and_measure, train
from product_classifier.train.weights import read_npz
from unit.train.conftest import CopyWorkspace


@pytest.fixture(scope="module")
def dataset(trained_workspace: Workspace) -> Dataset:
    return load_dataset(trained_workspace.raw)


def tiny(
    workspace: Workspace, image: dict[str, object] | None = None, **values: Any
) -> TrainParams:
    params = load_params(workspace.params).train
    text = params.text.model_copy(update={"min_steps": 0, "epochs": 1})
    return params.model_copy(
        update={"text": text, "image": params.image.model_copy(update=image or {}), **values}
    )


def retrain(workspace: Workspace, params: TrainParams) -> TrainResult:
    return train(workspace, get_settings(), params)


def network_weights(bundle: Path, name: str) -> str:
    return hash_weights(keras.models.load_model(bundle / name).get_weights())


def test_the_written_bundle_is_whole(trained_workspace: Workspace, dataset: Dataset) -> None:
    bundle = load_bundle(trained_workspace.candidate)
    manifest = bundle.manifest
    assert set(manifest.files) == {
        names.TOKENIZER, names.MAPPER, names.FUSION_WEIGHTS, names.TEXT_MODEL, names.IMAGE_MODEL,
        names.FUSED_MODEL, names.IMAGE_BASE_WEIGHTS, names.MODEL_CARD, names.REFERENCE_OBSERVATIONS,
        *(f"inference/{part}.{end}" for part in ("text", "image_base", "image_head") for end in ("xml", "bin")),
    }  # fmt: skip
    assert tuple(manifest.labels) == dataset.label_map.codes
    assert set(manifest.names) == {str(code) for code in manifest.labels}
    assert set(manifest.thresholds.auto_from) == {"text+image", "text", "image"}
    assert set(manifest.metrics) >= {
        "fusion",
        "text_only",
        "image_only",
        "tfidf",
        "export",
        "timing",
    }
    assert {"accuracy", "macro_f1", "weighted_f1", "top3_accuracy", "calibration_error", "coverage", "n"} <= set(
        manifest.metrics["fusion"]
    )  # fmt: skip
    assert manifest.metrics["fusion"]["n"] == len(dataset.sides["test"])
    assert 0 <= manifest.reference["unknown_token_rate"] < 1
    assert manifest.backbone.weights == "random"
    assert read_manifest(trained_workspace.candidate).files == manifest.files


def test_random_weights_are_told_in_manifest_and_model_card(trained_workspace: Workspace) -> None:
    manifest = read_manifest(trained_workspace.candidate)
    card = (trained_workspace.candidate / names.MODEL_CARD).read_text()
    assert any("RANDOM" in warning for warning in manifest.warnings)
    assert "**Warning.** The image branch stands on RANDOM" in card
    assert f"{manifest.metrics['fusion']['macro_f1']:.4f}" in card


def test_the_export_answers_as_keras_does(trained_workspace: Workspace) -> None:
    export = read_manifest(trained_workspace.candidate).metrics["export"]
    for branch in ("text", "image"):
        assert export[f"{branch}_top1_agreement"] == 1.0
        assert 0 <= export[f"{branch}_max_difference"] < 1e-3
        assert export[f"{branch}_macro_f1_difference"] == 0.0


def test_the_bundle_holds_no_pickle_no_code_and_no_optimizer(trained_workspace: Workspace) -> None:
    bundle = trained_workspace.candidate
    for path in (p for p in bundle.rglob("*") if p.is_file()):
        assert path.suffix in {".json", ".keras", ".xml", ".bin", ".npz", ".md", ".csv"}
        assert path.read_bytes()[:2] not in (b"\x80\x04", b"\x80\x05"), path
    with zipfile.ZipFile(bundle / names.IMAGE_BASE_WEIGHTS) as archive:
        for member in archive.namelist():
            assert b"|O" not in archive.open(member).read(128), member
    for name in (names.TEXT_MODEL, names.IMAGE_MODEL, names.FUSED_MODEL):
        with zipfile.ZipFile(bundle / name) as archive:
            assert "product_classifier" not in archive.read("config.json").decode()
            assert "Lambda" not in archive.read("config.json").decode()
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
                assert "optimizer" not in weights, name
    assert read_npz(bundle / names.IMAGE_BASE_WEIGHTS)[0].shape == (3, 3, 3, 64)


def test_reused_branches_make_the_same_model_again(
    copy_workspace: CopyWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copy_workspace()
    before = read_manifest(workspace.candidate)
    shutil.copytree(workspace.candidate, workspace.models / "old")
    decoded = count_decoded(monkeypatch)
    # Parameters of the branches play no part: those are taken as they are.
    params = tiny(
        workspace, {"size": 64, "crop": True}, branches="reuse", reuse_bundle="models/old"
    )
    result = retrain(workspace, params)
    after = load_bundle(workspace.candidate).manifest
    assert after.content_id == before.content_id
    assert after.metrics["fusion"] == before.metrics["fusion"]
    assert (after.warnings, after.backbone) == (before.warnings, before.backbone)
    assert after.created_at > before.created_at
    for name in (names.TEXT_MODEL, names.IMAGE_MODEL):
        assert network_weights(workspace.candidate, name) == network_weights(
            workspace.models / "old", name
        )
    for name in (names.TOKENIZER, "inference/image_base.bin", names.IMAGE_BASE_WEIGHTS):
        assert after.files[name] == before.files[name]
    # What the probe of the next run looks at is the same: a reuse must not ask for one more training.
    assert reused_branches(workspace, "models/candidate") == reused_branches(
        workspace, "models/old"
    )
    assert decoded == []  # the features were in the cache
    record = json.loads((workspace.runs / result.run_id / "run.json").read_text())
    assert record["status"] == "FINISHED"
    logged = [path.read_text() for path in (workspace.runs / result.run_id).glob("metrics*")]
    assert any("macro_f1" in text for text in logged)
    assert not any("text_loss" in text or "image_loss" in text for text in logged)
    assert not (workspace.cache / "training").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", [10, 40], "product codes are not the data's"),
        ("text_version", 99, "other preprocessing"),
        ("image_version", 99, "other preprocessing"),
    ],
)
def test_a_bundle_that_does_not_fit_is_not_reused(
    copy_workspace: CopyWorkspace, field: str, value: object, message: str
) -> None:
    workspace = copy_workspace()
    path = workspace.candidate / names.MANIFEST
    content = json.loads(path.read_text())
    (content if field in content else content["preprocessing"])[field] = value
    path.unlink()
    path.write_text(json.dumps(content))
    params = tiny(workspace, branches="reuse", reuse_bundle="models/candidate")
    with pytest.raises(ConfigurationError, match=message) as caught:
        retrain(workspace, params)
    assert caught.value.exit_code == 2


def test_a_missing_bundle_is_bad_input_and_a_damaged_one_a_fault(
    copy_workspace: CopyWorkspace,
) -> None:
    workspace = copy_workspace()
    with pytest.raises(ConfigurationError, match="names no bundle"):
        retrain(workspace, tiny(workspace, branches="reuse", reuse_bundle="models/nowhere"))
    (workspace.candidate / names.MAPPER).unlink()
    with pytest.raises(ArtifactError, match=r"mapper\.json is missing"):
        retrain(workspace, tiny(workspace, branches="reuse", reuse_bundle="models/candidate"))


def test_fine_tuned_and_quantized_on_tiny_photos(
    copy_workspace: CopyWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copy_workspace()
    dataset = load_dataset(workspace.raw)
    params = tiny(
        workspace,
        {
            "fine_tune_blocks": 1,
            "fine_tune_epochs": 1,
            "fine_tune_learning_rate": 1e-4,
            "precision": "int8",
            "epochs": 2,
        },
    )

    def branches(allowed_loss: float) -> Branches:
        monkeypatch.setattr(branches_module, "MAX_INT8_LOSS", allowed_loss)
        make_deterministic(params.seed)
        return train_branches(workspace, dataset, params, workspace.cache / "training")

    # A bound that nothing can meet: the reference precision stays, and the report says so.
    kept = branches(-2.0)
    assert (kept.backbone.precision, kept.backbone.report["taken"]) == ("float32", "float32")
    taken = branches(1.0)  # goes on from the checkpoints: nothing is trained twice
    np.testing.assert_array_equal(taken.tokens, kept.tokens)
    report = taken.backbone.report
    assert (report["taken"], report["reference"]) == ("int8", "float32")
    assert (
        report["reference_validation_macro_f1"]
        == kept.backbone.report["reference_validation_macro_f1"]
    )
    assert report["int8_validation_macro_f1"] == kept.backbone.report["int8_validation_macro_f1"]

    before = read_npz(workspace.candidate / names.IMAGE_BASE_WEIGHTS)
    old_sha256 = read_manifest(workspace.candidate).backbone.weights_sha256
    fitted = fuse_and_measure(dataset, taken, params)
    backbone = write_candidate(workspace, dataset, fitted).backbone  # checks what it has written
    assert (backbone.precision, backbone.fine_tuned_blocks) == ("int8", 1)
    assert backbone.precision_report == report
    assert "FakeQuantize" in (workspace.candidate / names.IMAGE_BASE_NETWORK).read_text()
    after = read_npz(workspace.candidate / names.IMAGE_BASE_WEIGHTS)
    assert backbone.weights_sha256 == hash_weights(list(after)) != old_sha256
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False] * 20 + [True] * 6  # three convolutions: block 5
    # Two quantizations of one base must not share cached features.
    other = taken.backbone.network.with_name("other.xml")
    shutil.copy(taken.backbone.network, other)
    other.with_suffix(".bin").write_bytes(
        taken.backbone.network.with_suffix(".bin").read_bytes() + b"0"
    )
    assert replace(taken.backbone, network=other).features_name != taken.backbone.features_name


def test_the_self_check_keeps_a_bundle_that_answers_otherwise_from_view(
    copy_workspace: CopyWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copy_workspace()
    yesterday = (workspace.candidate / names.MANIFEST).read_bytes()
    dataset = load_dataset(workspace.raw)
    shutil.copytree(workspace.candidate, workspace.models / "old")
    params = tiny(workspace, branches="reuse", reuse_bundle="models/old")
    params = params.model_copy(update={"fusion": params.fusion.model_copy(update={"l2": 30.0})})
    fitted = fit(workspace, dataset, params)
    old = json.loads((workspace.candidate / names.FUSION_WEIGHTS).read_text())
    assert fitted.weights.to_json()["text"] != old["text"]  # only the fusion was fitted, and it was
    write_parts = candidate_module._write_parts

    def write_other_weights(folder: Path, dataset: Dataset, fitted: Fitted) -> None:
        weights = replace(fitted.weights, text=fitted.weights.text + 0.2)
        write_parts(folder, dataset, replace(fitted, weights=weights))

    monkeypatch.setattr(candidate_module, "_write_parts", write_other_weights)
    with pytest.raises(ArtifactError, match="does not answer as the training measured"):
        write_candidate(workspace, dataset, fitted)
    assert (workspace.candidate / names.MANIFEST).read_bytes() == yesterday
    assert {path.name for path in workspace.models.iterdir()} == {"candidate", "old"}
    monkeypatch.undo()
    manifest = write_candidate(workspace, dataset, fitted)
    assert manifest == load_bundle(workspace.candidate).manifest
    assert manifest.content_id != json.loads(yesterday)["content_id"]


def test_the_seed_decides(trained_workspace: Workspace, dataset: Dataset, tmp_path: Path) -> None:
    def weights(seed: int, folder: str) -> str:
        make_deterministic(seed)
        text = tiny(trained_workspace).text
        return hash_weights(
            train_text_branch(dataset, text, seed, tmp_path / folder).model.get_weights()
        )

    assert weights(1, "a") == weights(1, "b") != weights(2, "c")


def test_fields_are_taken_apart_again() -> None:
    assert split_fields("[TITLE] a b [DESC] c") == ("[TITLE] a b", "[DESC] c")
    assert split_fields("[TITLE] a") == ("[TITLE] a", "")
    assert split_fields("[DESC] c") == ("", "[DESC] c")
    assert split_fields("") == ("", "")


def test_the_length_holds_nearly_all_texts(trained_workspace: Workspace, dataset: Dataset) -> None:
    from product_classifier.features.text import load_tokenizer

    tokenizer = load_tokenizer(trained_workspace.candidate / names.TOKENIZER)
    texts = list(dataset.texts)
    lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    found = fitting_length(tokenizer, texts, 512)
    assert found % 8 == 0
    assert np.mean(np.array(lengths) <= found) >= 0.99
    assert fitting_length(tokenizer, texts, 24) == 24
    assert fitting_length(tokenizer, ["a"], 512) == 8
    assert fitting_length(tokenizer, [], 512) == 8


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Collects the photos that the feature extraction decodes."""
    decoded: list[bytes] = []
    original = photo_features.preprocess_photo

    def counting(data: bytes, size: int, crop: bool) -> Any:
        decoded.append(data)
        return original(data, size, crop)

    monkeypatch.setattr(photo_features, "preprocess_photo", counting)
    return decoded


def test_new_photos_alone_are_computed(
    trained_workspace: Workspace, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    products = dataset.products[:40]
    generator = np.random.default_rng(0)

    def add(index: int, content: bytes | None = None) -> None:
        buffer = io.BytesIO()
        noise = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "PNG")
        (folder / products[index].photo_name).write_bytes(content or buffer.getvalue())

    def compute(**image: object) -> tuple[Any, Any, list[bytes]]:
        decoded.clear()
        some = replace(dataset, products=products, photos=PhotoStore(folder))
        photos: PhotoIndex = index_photos(some)
        params = ImageParams(size=32).model_copy(update=image)
        network = trained_workspace.candidate / names.IMAGE_BASE_NETWORK
        found, usable = compute_features(
            some, photos, network, "float32", params, "network", tmp_path / "cache"
        )
        return found, usable, list(decoded)

    decoded = count_decoded(monkeypatch)
    for index in range(20):
        add(index)
    add(20, (folder / products[0].photo_name).read_bytes())  # the same photo of another product
    add(21, b"broken")
    first, usable, done = compute()
    assert usable.tolist() == [True] * 21 + [False] * 19
    assert len(done) == 21  # 20 photos and the broken one
    np.testing.assert_array_equal(first[0], first[20])
    assert not first[21:].any()
    assert compute()[2] == []  # the broken one is not tried again
    for index in (30, 31, 32):
        add(index)
    second, usable, done = compute()
    assert len(done) == 3
    np.testing.assert_array_equal(second[:22], first[:22])
    assert usable[[30, 31, 32]].all()
    assert second[[30, 31, 32]].any(axis=1).all()
    assert len(compute(crop=True)[2]) == 24  # other pixels, other features
    for segment in (tmp_path / "cache").rglob("segment-*.npz"):
        segment.write_bytes(segment.read_bytes()[:100])
    third, _, done = compute()
    assert len(done) == 24
    np.testing.assert_array_equal(third, second)
