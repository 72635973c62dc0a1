"""Which VGG16 weights a training starts from. The network is a closed port: these tests never leave the machine."""

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.core.params import ImageParams, load_params
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace
from product_classifier.modeling.vgg16_image_classifier import BLOCKS, random_vgg16_weights
from product_classifier.train import weights as module
from product_classifier.train.probe import write_probe
from product_classifier.train.weights import (
    KERAS_FILE,
    ResolvedWeights,
    load_weights,
    read_npz,
    resolve_weights,
    write_npz,
)

NAMES = [
    f"block{block}_conv{layer}"
    for block, filters in enumerate(BLOCKS, start=1)
    for layer in range(1, len(filters) + 1)
]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and a download cache of its own; gives the place of ImageNet's weights there."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    # urllib keeps the first opener it made, with the proxies of that moment: ours must not outlive the test.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path / "keras" / "models" / KERAS_FILE


@pytest.fixture(scope="module")
def arrays() -> list[Any]:
    """Weights whose every array differs from every other, zero biases too."""
    return [
        array + np.float32(index) if array.ndim == 1 else array
        for index, array in enumerate(random_vgg16_weights(3))
    ]


def write_h5(path: Path, arrays: list[Any], style: str) -> Path:
    """Writes one of the layouts in which Keras has written weights over time."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if style == "keras3 whole model" else file
        for index, name in reversed(list(enumerate(NAMES))):
            kernel, bias = arrays[2 * index], arrays[2 * index + 1]
            if style == "keras1":  # as the published ImageNet file
                members = {f"{name}/{name}_W_1:0": kernel, f"{name}/{name}_b_1:0": bias}
            elif style == "keras2":
                members = {f"{name}/{name}/kernel:0": kernel, f"{name}/{name}/bias:0": bias}
            elif style == "keras3 whole model":
                members = {f"{name}/{name}/kernel": kernel, f"{name}/{name}/bias": bias}
            else:
                layer = "conv2d" + (f"_{index}" if index else "")
                members = {f"layers/{layer}/vars/0": kernel, f"layers/{layer}/vars/1": bias}
            for member, array in members.items():
                root[member] = array
            if style == "keras3 weights":
                root[f"layers/{layer}/vars"].attrs["name"] = name
        root["fc1/fc1/kernel:0"] = np.zeros((4, 4), dtype=np.float32)  # the top is left out
        if style == "keras3 whole model":
            file["optimizer_weights/adam/block1_conv1_kernel_momentum"] = arrays[0] * 9
    return path


@pytest.mark.parametrize("style", ["keras1", "keras2", "keras3 whole model", "keras3 weights"])
def test_every_layout_of_keras_is_read(tmp_path: Path, arrays: list[Any], style: str) -> None:
    write_h5(tmp_path / "w.h5", arrays, style)
    found = load_weights(resolve_weights(ImageParams(weights="w.h5"), 1, tmp_path))
    assert len(found) == 26
    for array, wanted in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_what_this_keras_writes_is_read(tmp_path: Path, arrays: list[Any]) -> None:
    from product_classifier.modeling.vgg16_image_classifier import build_vgg16_base

    base = build_vgg16_base(32, 2)
    base.set_weights(arrays)
    base.save_weights(tmp_path / "w.weights.h5")
    found = load_weights(resolve_weights(ImageParams(weights="w.weights.h5"), 1, tmp_path))
    for array, wanted in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_npz_survives_a_round_trip_and_equal_arrays_give_equal_bytes(
    tmp_path: Path, arrays: list[Any]
) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for array, wanted in zip(read_npz(tmp_path / "a.npz"), arrays, strict=True):
        np.testing.assert_array_equal(array, wanted)
    doubles = tmp_path / "doubles.npz"
    np.savez(doubles, **{f"{i:03d}": array.astype(np.float64) for i, array in enumerate(arrays)})
    found = load_weights(resolve_weights(ImageParams(weights=str(doubles)), 1, tmp_path))
    assert {array.dtype for array in found} == {np.dtype(np.float32)}


def broken_files(folder: Path, arrays: list[Any]) -> dict[str, Path]:
    files = {}
    for name, content in (
        ("text.h5", b"no weights"),
        ("empty.npz", b""),
        ("zip.npz", b"PK\3\4" * 9),
    ):
        files[name] = folder / name
        files[name].write_bytes(content)
    files["short.npz"] = folder / "short.npz"
    write_npz(files["short.npz"], arrays[:-2])
    files["turned.npz"] = folder / "turned.npz"
    write_npz(files["turned.npz"], [arrays[0].transpose(3, 2, 0, 1), *arrays[1:]])
    files["nan.npz"] = folder / "nan.npz"
    write_npz(files["nan.npz"], [arrays[0] * np.nan, *arrays[1:]])
    files["pickle.npz"] = folder / "pickle.npz"
    np.savez(files["pickle.npz"], a=np.array([{"a": 1}], dtype=object))
    files["half.h5"] = write_h5(folder / "half.h5", arrays, "keras2")
    with h5py.File(files["half.h5"], "a") as file:
        del file["block3_conv2/block3_conv2/bias:0"]
    files["other.h5"] = folder / "other.h5"
    with h5py.File(files["other.h5"], "w") as file:
        file["dense/kernel:0"] = np.zeros((2, 2))
    return files


def test_a_file_that_holds_no_vgg16_is_bad_input(tmp_path: Path, arrays: list[Any]) -> None:
    for name, path in broken_files(tmp_path, arrays).items():
        resolved = resolve_weights(ImageParams(weights=name), 1, tmp_path)
        with pytest.raises(ConfigurationError, match=path.name):
            load_weights(resolved)


def test_a_path_that_leads_nowhere_is_bad_input(tmp_path: Path) -> None:
    for path in ("nowhere.h5", "", "."):
        with pytest.raises(ConfigurationError, match="imagenet, random, auto, or the path"):
            resolve_weights(ImageParams(weights=path), 1, tmp_path)


def test_a_file_that_changes_under_the_training_is_told(tmp_path: Path, arrays: list[Any]) -> None:
    write_npz(tmp_path / "w.npz", arrays)
    resolved = resolve_weights(ImageParams(weights="w.npz"), 1, tmp_path)
    write_npz(tmp_path / "w.npz", [arrays[0] * 2, *arrays[1:]])
    with pytest.raises(ArtifactError, match="changed while it was in use"):
        load_weights(resolved)


def test_auto_without_a_network_is_random_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    resolved = resolve_weights(ImageParams(weights="auto"), 5, Path())
    assert (resolved.kind, resolved.seed) == ("random", 5)
    assert "RANDOM" in str(resolved.warning)
    assert "can't be downloaded" in caplog.text
    assert "RANDOM" in caplog.text
    assert resolve_weights(ImageParams(weights="random"), 5, Path()) == resolved


def test_imagenet_without_a_network_is_bad_input(offline: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be downloaded") as caught:
        resolve_weights(ImageParams(weights="imagenet"), 5, Path())
    assert caught.value.exit_code == 2
    assert str(offline) in str(caught.value)  # where the file may be put by hand


@pytest.mark.parametrize("weights", ["auto", "imagenet"])
def test_cached_imagenet_weights_are_used(
    offline: Path, arrays: list[Any], weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline.parent.mkdir(parents=True)
    write_h5(offline, arrays, "keras1")
    content = offline.read_bytes()
    monkeypatch.setattr(
        module, "KERAS_MD5", hashlib.md5(content, usedforsecurity=False).hexdigest()
    )
    resolved = resolve_weights(ImageParams(weights=weights), 5, Path())
    assert (resolved.kind, resolved.sha256) == ("imagenet", hashlib.sha256(content).hexdigest())
    assert resolved.warning is None
    np.testing.assert_array_equal(load_weights(resolved)[4], arrays[4])
    offline.write_bytes(content[:-1])  # a download that was cut short
    if weights == "auto":
        assert resolve_weights(ImageParams(weights="auto"), 5, Path()).kind == "random"
    else:
        with pytest.raises(ConfigurationError, match="can't be downloaded"):
            resolve_weights(ImageParams(weights="imagenet"), 5, Path())


def test_weights_without_file_and_seed_are_refused() -> None:
    with pytest.raises(ArtifactError, match="Resolve them again"):
        load_weights(ResolvedWeights("file", "0" * 64))


def set_weights(workspace: Workspace, **image: object) -> None:
    workspace.params.write_text(json.dumps({"train": {"image": image}}))


def test_the_probe_changes_with_the_weights_and_only_then(
    workspace: Workspace, arrays: list[Any]
) -> None:
    def probe() -> tuple[str, int]:
        path = write_probe(workspace, get_settings(), load_params(workspace.params).train)
        return path.read_text(), path.stat().st_mtime_ns

    set_weights(workspace, weights="w.npz")
    write_npz(workspace.root / "w.npz", arrays)
    first = probe()
    assert str(workspace.root) not in first[0]
    (workspace.root / "w.npz").rename(workspace.root / "moved.npz")
    set_weights(workspace, weights="moved.npz")
    assert probe() == first
    write_npz(workspace.root / "moved.npz", [arrays[0] * 2, *arrays[1:]])
    second = probe()
    assert second[0] != first[0]
    set_weights(workspace, weights="auto")
    third = probe()
    assert third[0] not in (first[0], second[0])
    set_weights(workspace, weights="random")
    assert probe() == third


def test_the_probe_names_the_branches_to_reuse(
    workspace: Workspace, trained_workspace: Workspace, make_bundle: Any
) -> None:
    def probe() -> str:
        params = load_params(workspace.params).train
        return write_probe(workspace, get_settings(), params).read_text()

    workspace.params.write_text("train: {branches: reuse, reuse_bundle: models/old}\n")
    with pytest.raises(ConfigurationError, match=r"names no bundle.*models/old") as caught:
        probe()
    assert caught.value.exit_code == 2
    old = workspace.models / "old"
    old.mkdir(parents=True)
    manifest = (trained_workspace.candidate / "manifest.json").read_text()
    (old / "manifest.json").write_text(manifest)
    first = probe()
    sha256 = json.loads(manifest)["files"]["inference/text.bin"]["sha256"]
    assert sha256 in first
    (old / "manifest.json").write_text(manifest.replace(sha256, "0" * 64))
    assert probe() != first
    (old / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        probe()
    workspace.params.write_text("train: {branches: reuse, reuse_bundle: models/other}\n")
    make_bundle(workspace.models / "other")
    with pytest.raises(ArtifactError, match=r"lists no .*text\.bin"):
        probe()
