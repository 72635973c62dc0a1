"""The predictor on a really trained bundle, and the Keras model of the same bundle beside it."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from product_classifier.core import bundle as names
from product_classifier.core.bundle import read_manifest
from product_classifier.core.errors import ArtifactError
from product_classifier.core.workspace import Workspace
from product_classifier.features.text import encode_texts
from product_classifier.modeling.calibration import NEVER
from product_classifier.modeling.fusion import fuse
from product_classifier.modeling.predictor import DecodedProduct, Predictor, ProductInput

TEXTS = ["[TITLE] livre de poche", "[TITLE] console [DESC] jeu vidéo 12 cm", "[DESC] chaise", ""]


def photo(colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def predictor(trained_workspace: Workspace) -> Predictor:
    return Predictor.load(trained_workspace.candidate)


def test_keras_model_loads_without_this_package_and_agrees(
    predictor: Predictor, tmp_path: Path
) -> None:
    """In a bare process, in safe mode: as a user who has nothing but the file."""
    generator = np.random.default_rng(0)
    size = predictor.extractor.feature_size
    features = (generator.random((12, size)) * 30).astype(np.float32)
    tokens = encode_texts(
        predictor.tokenizer, TEXTS[:3] * 4, predictor.bundle.manifest.preprocessing.max_tokens
    )
    has_text = np.array([1, 1, 0, 1] * 3, dtype=bool)
    has_image = np.array([1, 0, 1, 1] * 3, dtype=bool)
    np.savez(
        tmp_path / "inputs.npz",
        tokens=tokens,
        features=features,
        has_text=has_text[:, None].astype(np.float32),
        has_image=has_image[:, None].astype(np.float32),
    )
    program = (
        "import sys, numpy as np\n"
        "sys.modules['product_classifier'] = None\n"
        "import keras\n"
        "model = keras.models.load_model(sys.argv[1], safe_mode=True)\n"
        "inputs = dict(np.load('inputs.npz'))\n"
        "np.save('found.npy', model.predict(inputs, verbose=0))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(predictor.bundle.file(names.FUSED_MODEL))],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )
    expected = fuse(
        predictor.weights,
        predictor.text_logits(TEXTS[:3] * 4).astype(np.float64),
        predictor.image_logits(features).astype(np.float64),
        has_text,
        has_image,
    )
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)


def test_scores_do_not_depend_on_the_company(predictor: Predictor) -> None:
    products = [
        predictor.decode(ProductInput(title, "bois", photo((index * 20, 90, 10))))
        for index, title in enumerate(["Livre", "Console", "", "Chaise longue", "Poupée"])
    ]
    together = predictor.score(products)
    alone = np.concatenate([predictor.score([product]) for product in products])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1)


def test_nothing_at_all_is_answered_by_the_class_shares_and_reviewed(predictor: Predictor) -> None:
    answer = predictor.predict([ProductInput("nan", " ", None)])[0]
    order = np.argsort(-predictor.weights.prior, kind="stable")[:3]
    assert [ranked.code for ranked in answer.top] == [predictor.labels.codes[i] for i in order]
    assert answer.confidence == pytest.approx(predictor.weights.prior.max())
    assert (answer.modalities, answer.decision, answer.threshold) == ("nothing", "review", NEVER)


def test_a_broken_photo_is_told_and_the_text_still_answers(predictor: Predictor) -> None:
    broken, empty, without = predictor.predict(
        [
            ProductInput("Livre", "roman", b"broken"),
            ProductInput("Livre", "roman", b""),
            ProductInput("Livre", "roman", None),
        ]
    )
    assert "none of JPEG" in str(broken.photo_error)
    assert "0 bytes" in str(empty.photo_error)
    assert without.photo_error is None
    assert broken.modalities == empty.modalities == without.modalities == "text"
    assert broken.top == empty.top == without.top


def test_a_photo_alone_is_answered_by_the_image_branch(predictor: Predictor) -> None:
    answer = predictor.predict([ProductInput(None, None, photo())])[0]
    assert answer.modalities == "image"
    assert answer.code in predictor.labels.codes


def test_answers_are_ranked_and_judged_by_their_modality(predictor: Predictor) -> None:
    codes = predictor.labels.codes
    auto_from = predictor.bundle.manifest.thresholds.auto_from
    probabilities = np.full((4, len(codes)), 0.001)
    probabilities[:, [5, 2, 9]] = 0.6, 0.2, 0.1
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    products = [
        DecodedProduct("[TITLE] a", pixels),
        DecodedProduct("[TITLE] a", None),
        DecodedProduct("", pixels),
        DecodedProduct("", None, "broken"),
    ]
    answers = predictor.encode(products, probabilities)
    assert [a.modalities for a in answers] == ["text+image", "text", "image", "nothing"]
    for answer in answers:
        assert [(r.code, r.confidence) for r in answer.top] == [
            (codes[5], 0.6),
            (codes[2], 0.2),
            (codes[9], 0.1),
        ]
        threshold = auto_from.get(answer.modalities, NEVER)
        assert answer.threshold == threshold
        assert answer.decision == ("auto" if threshold <= 0.6 else "review")
    assert answers[3].photo_error == "broken"


@pytest.mark.parametrize(("step", "decision"), [(0, "auto"), (1, "review")])
def test_a_confidence_on_the_threshold_passes(
    predictor: Predictor, step: int, decision: str
) -> None:
    auto_from = predictor.bundle.manifest.thresholds.auto_from
    confidence = 0.75
    before = auto_from["text"]
    auto_from["text"] = float(np.nextafter(confidence, 1)) if step else confidence
    try:
        row = np.full((1, len(predictor.labels)), 0.0)
        row[0, 3] = confidence
        answer = predictor.encode([DecodedProduct("[TITLE] a", None)], row)[0]
    finally:
        auto_from["text"] = before
    assert answer.decision == decision


def test_equal_scores_are_ranked_by_code(predictor: Predictor) -> None:
    flat = np.full((1, len(predictor.labels)), 1 / len(predictor.labels))
    answer = predictor.encode([DecodedProduct("[TITLE] a", None)], flat)[0]
    assert [ranked.code for ranked in answer.top] == list(predictor.labels.codes[:3])


def test_no_products_give_no_answers(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


@pytest.mark.parametrize("part", ["text_version", "image_version"])
def test_a_bundle_of_other_preprocessing_is_refused(
    trained_workspace: Workspace, tmp_path: Path, part: str
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(trained_workspace.candidate, copy, copy_function=os.link)
    manifest = read_manifest(copy).model_dump()
    manifest["preprocessing"][part] += 1
    (copy / names.MANIFEST).unlink()
    (copy / names.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"other preprocessing.*Train again"):
        Predictor.load(copy)


def test_every_network_of_the_bundle_runs_in_the_manifests_precision(predictor: Predictor) -> None:
    for pool in (predictor._text, predictor._head, predictor.extractor._pool):
        hint = pool.network.get_property("INFERENCE_PRECISION_HINT")
        assert hint.get_type_name() == "f32"
