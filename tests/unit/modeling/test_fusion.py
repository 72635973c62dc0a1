from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from product_classifier.core.errors import ArtifactError
from product_classifier.modeling import fusion_fit
from product_classifier.modeling.fusion import (
    BOTH,
    IMAGE,
    NOTHING,
    TEXT,
    BoolArray,
    FloatArray,
    FusionWeights,
    combine,
    fuse,
    log_softmax,
    modality_names,
)
from product_classifier.modeling.fusion_fit import fit_fusion_weights, fit_temperature

K = 4


def some_weights(seed: int = 0) -> FusionWeights:
    generator = np.random.default_rng(seed)
    prior = generator.random(K) + 0.1
    return FusionWeights(
        text=generator.random(K) * 2,
        image=generator.random(K) * 2,
        prior=prior / prior.sum(),
        temperatures={BOTH: 1.7, TEXT: 0.6, IMAGE: 2.5},
    )


def some_logits(count: int, seed: int = 1) -> tuple[FloatArray, FloatArray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, K)) * 3, generator.normal(size=(count, K)) * 3


def flags(*values: int) -> BoolArray:
    return np.array(values, dtype=bool)


def test_log_softmax_stands_large_logits() -> None:
    found = log_softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], dtype=np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1)
    np.testing.assert_allclose(found[1], np.log([0.5, 0.5]))


def test_modalities_are_named() -> None:
    assert modality_names(flags(1, 1, 0, 0), flags(1, 0, 1, 0)).tolist() == [
        BOTH,
        TEXT,
        IMAGE,
        NOTHING,
    ]


def test_a_row_is_judged_by_what_is_there() -> None:
    weights = some_weights()
    text, image = some_logits(4)
    has_text, has_image = flags(1, 1, 0, 0), flags(1, 0, 1, 0)
    found = fuse(weights, text, image, has_text, has_image)
    p_text, p_image = log_softmax(text), log_softmax(image)
    for row, scores, temperature in (
        (0, weights.text * p_text[0] + weights.image * p_image[0], 1.7),
        (1, weights.text * p_text[1], 0.6),
        (2, weights.image * p_image[2], 2.5),
    ):
        expected = np.exp(scores / temperature)
        np.testing.assert_allclose(found[row], expected / expected.sum())
    np.testing.assert_allclose(found[3], weights.prior)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_what_is_not_there_plays_no_part() -> None:
    weights, (text, image) = some_weights(), some_logits(3)
    has_text, has_image = flags(1, 0, 0), flags(0, 1, 0)
    other_text, other_image = some_logits(3, seed=9)
    other_text[0], other_image[1] = text[0], image[1]
    np.testing.assert_array_equal(
        fuse(weights, text, image, has_text, has_image),
        fuse(weights, other_text, other_image, has_text, has_image),
    )


def test_no_rows_give_no_answers() -> None:
    empty = np.zeros((0, K))
    assert fuse(some_weights(), empty, empty, flags(), flags()).shape == (0, K)


def test_weights_survive_json() -> None:
    import json

    weights = some_weights()
    found = FusionWeights.from_json(json.loads(json.dumps(weights.to_json())), K)
    for name in ("text", "image", "prior"):
        np.testing.assert_array_equal(getattr(found, name), getattr(weights, name))
    assert found.temperatures == weights.temperatures


@pytest.mark.parametrize(
    "change",
    [
        {"text": [1.0, 2.0, float("nan"), 1.0]},
        {"image": [1.0, float("inf"), 1.0, 1.0]},
        {"text": [1.0] * (K - 1)},
        {"image": [[1.0] * K]},
        {"image": "many"},
        {"text": [1.0, None, "x", 1.0]},
        {"text": None},
        {"prior": [0.5, 0.5, 0.0, 0.0]},
        {"prior": [1.2, -0.2, 0.5, 0.5]},
        {"temperatures": {BOTH: 1.0, TEXT: 1.0}},
        {"temperatures": {BOTH: 1.0, TEXT: 1.0, IMAGE: 0.0}},
        {"temperatures": {BOTH: 1.0, TEXT: 1.0, IMAGE: -1.0}},
        {"temperatures": {BOTH: float("nan"), TEXT: 1.0, IMAGE: 1.0}},
        {"temperatures": {BOTH: 1.0, TEXT: float("nan"), IMAGE: 1.0}},
        {"temperatures": {BOTH: float("inf"), TEXT: 1.0, IMAGE: 1.0}},
        {"temperatures": [1.0]},
    ],
    ids=str,
)
def test_unusable_weights_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError):
        FusionWeights.from_json({**some_weights().to_json(), **change}, K)


def test_missing_weights_are_refused() -> None:
    for name in ("text", "image", "prior", "temperatures"):
        content = some_weights().to_json()
        del content[name]
        with pytest.raises(ArtifactError, match=name):
            FusionWeights.from_json(content, K)


def rows_that_tell(count: int, seed: int = 0) -> dict[str, Any]:
    """Text tells classes 0 and 1 apart, the photo 2 and 3; some rows lack one or the other."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, K, count)
    text, image = generator.normal(size=(2, count, K))
    text[np.arange(count), labels] += np.where(labels < 2, 4.0, 0.2)
    image[np.arange(count), labels] += np.where(labels < 2, 0.2, 4.0)
    return {
        "text_logits": text,
        "image_logits": image,
        "has_text": generator.random(count) < 0.9,
        "has_image": generator.random(count) < 0.8,
        "labels": labels,
        "prior": np.full(K, 1 / K),
    }


def test_the_gradient_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spy(objective: Any, start: FloatArray, **options: Any) -> Any:
        seen.append((objective, start))
        return original(objective, start, **options)

    original = fusion_fit.minimize
    monkeypatch.setattr(fusion_fit, "minimize", spy)
    fit_fusion_weights(**rows_that_tell(60), l2=0.05, modality_dropout=0.3)
    for objective, start in seen:
        point = start + np.random.default_rng(3).normal(size=start.shape) * 0.3
        numeric = approx_fprime(point, lambda p, f=objective: f(p)[0], 1e-7)
        np.testing.assert_allclose(objective(point)[1], numeric, atol=2e-6)
    assert seen


def test_fitted_weights_beat_either_branch_on_new_rows() -> None:
    weights = fit_fusion_weights(**rows_that_tell(800), l2=1e-3, modality_dropout=0.25)
    test = rows_that_tell(800, seed=5)
    everything = np.ones(800, dtype=bool)

    def accuracy(has_text: BoolArray, has_image: BoolArray) -> float:
        scores = combine(weights, test["text_logits"], test["image_logits"], has_text, has_image)
        return float(np.mean(scores.argmax(axis=1) == test["labels"]))

    fused = accuracy(everything, everything)
    assert fused > accuracy(everything, ~everything) + 0.1
    assert fused > accuracy(~everything, everything) + 0.1
    assert np.isfinite(np.concatenate([weights.text, weights.image])).all()


def test_strong_shrinkage_gives_one_weight_per_branch() -> None:
    weights = fit_fusion_weights(**rows_that_tell(300), l2=1e3, modality_dropout=0.25)
    assert np.ptp(weights.text) < 1e-2
    assert np.ptp(weights.image) < 1e-2


def test_a_branch_that_knows_nothing_gets_little_weight() -> None:
    rows = rows_that_tell(600)
    rows["image_logits"] = np.random.default_rng(8).normal(size=(600, K)) * 3
    rows["text_logits"][np.arange(600), rows["labels"]] += 4
    weights = fit_fusion_weights(**rows, l2=1e-3, modality_dropout=0.1)
    assert weights.image.mean() < 0.1 * weights.text.mean()


def test_an_overconfident_branch_is_turned_down_beside_the_other() -> None:
    """Both know as much, but one is five times too sure of it."""
    generator = np.random.default_rng(6)
    labels = generator.integers(0, K, 3000)
    text, image = (
        generator.normal(size=(2, 3000, K)) + np.eye(K)[labels]
    )  # honest: unit noise, unit shift
    there = np.ones(3000, dtype=bool)
    weights = fit_fusion_weights(
        text,
        5 * image,
        there,
        there,
        labels,
        prior=np.full(K, 1 / K),
        l2=1e3,
        modality_dropout=0.25,
    )
    assert weights.image.mean() / weights.text.mean() == pytest.approx(0.2, rel=0.15)


def test_each_row_counts_once_and_once_more_for_each_modality_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the start, where all weights are 1, the loss is a plain sum of log-likelihoods."""
    seen: list[float] = []

    def spy(objective: Any, start: FloatArray, **options: Any) -> Any:
        seen.append(objective(start)[0])
        return original(objective, start, **options)

    original = fusion_fit.minimize
    monkeypatch.setattr(fusion_fit, "minimize", spy)
    rows, dropout = rows_that_tell(100), 0.3
    fit_fusion_weights(**rows, l2=0.05, modality_dropout=dropout)
    text, image = log_softmax(rows["text_logits"]), log_softmax(rows["image_logits"])
    expected = 0.0
    for row, label in enumerate(rows["labels"]):
        with_text, with_image = bool(rows["has_text"][row]), bool(rows["has_image"][row])
        whole = text[row] * with_text + image[row] * with_image
        expected -= float(log_softmax(whole)[label]) if with_text or with_image else 0.0
        expected -= dropout * float(text[row, label] * with_text + image[row, label] * with_image)
    assert seen[0] == pytest.approx(expected / 100)


def test_fitting_is_deterministic() -> None:
    first, second = (
        fit_fusion_weights(**rows_that_tell(200), l2=0.01, modality_dropout=0.25) for _ in range(2)
    )
    assert first.to_json() == second.to_json()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    generator = np.random.default_rng(4)
    honest = generator.normal(size=(6000, K)) * 2
    probabilities = np.exp(log_softmax(honest))
    labels = (generator.random((6000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert fit_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.08)


def test_too_few_rows_leave_the_temperature_alone() -> None:
    assert fit_temperature(np.zeros((19, K)), np.zeros(19, dtype=np.int64)) == 1.0
    assert fit_temperature(np.zeros((0, K)), np.zeros(0, dtype=np.int64)) == 1.0
    assert fit_temperature(np.eye(K)[np.zeros(20, dtype=int)], np.zeros(20, dtype=np.int64)) < 1.0
