"""Fitting the fusion: weights by maximum likelihood, temperatures, both on rows the branches never saw."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from product_classifier.modeling.calibration import MIN_SUPPORT
from product_classifier.modeling.fusion import (
    MODALITIES,
    BoolArray,
    FloatArray,
    FusionWeights,
    log_softmax,
)


def with_modality_dropout(
    has_text: BoolArray, has_image: BoolArray
) -> list[tuple[BoolArray, BoolArray]]:
    """Gives what is there in three views of the same rows: all, without photos, without texts."""
    nothing = np.zeros_like(has_text)
    return [(has_text, has_image), (has_text, nothing), (nothing, has_image)]


@dataclass(frozen=True)
class _Term:
    """Some rows judged by given modalities: `text` and `image` are log-probabilities `(N, K)`, or None.

    `share` says how much each row counts, `(N,)`; `scales` are the positions of the text's and the
    photo's scale among the four that are learned.
    """

    share: FloatArray
    text: FloatArray | None
    image: FloatArray | None
    scales: tuple[int, int]


SCALE_L2 = 1e-3  # keeps the scales finite where the rows are perfectly told apart

# Positions of the learned scales: beside a photo, beside a text, text alone, photo alone.
_TEXT, _IMAGE, _TEXT_ALONE, _IMAGE_ALONE = range(4)


def _make_terms(
    text_logits: FloatArray,
    image_logits: FloatArray,
    has_text: BoolArray,
    has_image: BoolArray,
    modality_dropout: float,
) -> list[_Term]:
    text, image = log_softmax(text_logits), log_softmax(image_logits)
    both = has_text & has_image
    text_share = np.where(has_text & ~has_image, 1.0, 0.0) + modality_dropout * has_text
    image_share = np.where(has_image & ~has_text, 1.0, 0.0) + modality_dropout * has_image
    return [
        _Term(both.astype(np.float64), text, image, (_TEXT, _IMAGE)),
        _Term(text_share, text, None, (_TEXT_ALONE, _IMAGE_ALONE)),
        _Term(image_share, None, image, (_TEXT_ALONE, _IMAGE_ALONE)),
    ]


class _Likelihood:
    """Negative log-likelihood with gradient, over class weights `(2, K)` around 1 and four log-scales."""

    def __init__(
        self, terms: list[_Term], labels: NDArray[np.int64], classes: int, l2: float
    ) -> None:
        self.terms, self.l2, self.classes = terms, l2, classes
        self.onehot = np.eye(classes)[labels]

    def __call__(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        weights, scales = self.unpack(parameters)
        log_scales = parameters[-4:]
        loss = self.l2 * float(((weights - 1) ** 2).sum()) + SCALE_L2 * float(
            log_scales @ log_scales
        )
        gradient = 2 * self.l2 * (weights - 1)
        scale_gradient = 2 * SCALE_L2 * log_scales
        for term in self.terms:
            parts = [
                (row, position, scales[position] * branch)
                for row, (position, branch) in enumerate(
                    zip(term.scales, (term.text, term.image), strict=True)
                )
                if branch is not None
            ]
            scores = log_softmax(np.sum([weights[row] * part for row, _, part in parts], axis=0))
            share = term.share[:, None] / len(self.onehot)
            loss -= float((share * scores * self.onehot).sum())
            slope = share * (np.exp(scores) - self.onehot)
            for row, position, part in parts:
                slopes = (slope * part).sum(axis=0)
                gradient[row] += slopes
                scale_gradient[position] += weights[row] @ slopes
        return loss, np.concatenate([gradient.ravel(), scale_gradient])

    def unpack(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gives class weights `(2, K)` and the four scales."""
        return parameters[:-4].reshape(2, self.classes), np.exp(parameters[-4:])


def fit_fusion_weights(
    text_logits: FloatArray,
    image_logits: FloatArray,
    has_text: BoolArray,
    has_image: BoolArray,
    labels: NDArray[np.int64],
    *,
    prior: FloatArray,
    l2: float,
    modality_dropout: float,
) -> FusionWeights:
    """Learns the weights by maximum likelihood, with modality dropout and shrinkage.

    Each row counts three times: as it is (weight 1), without photo and without text (each with weight
    `modality_dropout`), so that the class weights also suit a product with one modality. Each of the three has its
    own scale, so that a photo alone, which must decide, does not bend how little a photo counts beside a text.
    Class weights are pulled to their common value by `l2`: rare classes have few rows.

    Args:
        text_logits: Shape `(N, K)`.
        image_logits: Shape `(N, K)`.
        has_text: Shape `(N,)`.
        has_image: Shape `(N,)`.
        labels: Label indices, shape `(N,)`.
        prior: Class shares of the training rows, shape `(K,)`, above 0.
        l2: Strength of the pull, in nats per row and squared unit.
        modality_dropout: Weight of the views with one modality.

    Returns:
        Weights with all temperatures 1: calibration sets them.
    """
    classes = text_logits.shape[1]
    terms = _make_terms(text_logits, image_logits, has_text, has_image, modality_dropout)
    likelihood = _Likelihood(terms, labels, classes, l2)
    start = np.concatenate([np.ones(2 * classes), np.zeros(4)])
    bounds = [(0.0, 5.0)] * (2 * classes) + [(-4.0, 4.0)] * 4
    fitted = minimize(likelihood, start, jac=True, method="L-BFGS-B", bounds=bounds)
    weights, scales = likelihood.unpack(fitted.x)
    # Only how much a photo counts beside a text is kept of the scales: how sure an answer may be is the
    # temperature's business, and on rows that are easily told apart the likelihood would drive it anywhere.
    return FusionWeights(
        text=weights[0],
        image=weights[1] * scales[_IMAGE] / scales[_TEXT],
        prior=prior,
        temperatures=dict.fromkeys(MODALITIES, 1.0),
    )


def fit_temperature(scores: FloatArray, labels: NDArray[np.int64]) -> float:
    """Finds the temperature that makes the scores most likely. Source: https://arxiv.org/abs/1706.04599.

    Args:
        scores: Unnormalised log-probabilities, shape `(N, K)`.
        labels: Label indices, shape `(N,)`.

    Returns:
        A value in [0.05, 20]; 1 where there are fewer than `MIN_SUPPORT` rows.
    """
    if len(labels) < MIN_SUPPORT:
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(scores / np.exp(log_temperature))
        return -float(scaled[np.arange(len(labels)), labels].mean())

    fitted = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(fitted.x))
