"""Fusion, temperatures and thresholds, all from the validation rows, which neither branch was trained on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from product_classifier.core.params import FusionParams, ThresholdParams
from product_classifier.modeling.calibration import threshold_for_precision
from product_classifier.modeling.fusion import (
    MODALITIES,
    BoolArray,
    FloatArray,
    FusionWeights,
    combine,
    log_softmax,
    modality_names,
)
from product_classifier.modeling.fusion_fit import (
    fit_fusion_weights,
    fit_temperature,
    with_modality_dropout,
)

FOLDS = 5


@dataclass(frozen=True)
class BranchScores:
    """Both branches' logits for some products; `labels` holds label indices."""

    text_logits: FloatArray
    image_logits: FloatArray
    has_text: BoolArray
    has_image: BoolArray
    labels: NDArray[np.int64]

    def rows(self, index: NDArray[np.int64]) -> "BranchScores":
        """Takes some rows."""
        return BranchScores(
            self.text_logits[index],
            self.image_logits[index],
            self.has_text[index],
            self.has_image[index],
            self.labels[index],
        )

    def views(self) -> list["BranchScores"]:
        """Gives the rows as they are, without photos, and without texts."""
        return [
            replace(self, has_text=has_text, has_image=has_image)
            for has_text, has_image in with_modality_dropout(self.has_text, self.has_image)
        ]


def fit_fusion(
    scores: BranchScores,
    prior: FloatArray,
    params: FusionParams,
    thresholds: ThresholdParams,
    seed: int,
) -> tuple[FusionWeights, dict[str, float]]:
    """Fits weights, temperatures and thresholds on validation rows.

    Temperatures and thresholds are taken from cross-fitted scores: each row is scored by weights that were fitted
    without it, as a new product would be.

    Returns:
        The weights (fitted on all rows), and for each modality the confidence from which answers pass.
    """

    def fit(rows: BranchScores) -> FusionWeights:
        return fit_fusion_weights(
            rows.text_logits,
            rows.image_logits,
            rows.has_text,
            rows.has_image,
            rows.labels,
            prior=prior,
            l2=params.l2,
            modality_dropout=params.modality_dropout,
        )

    pooled_scores, pooled_names, pooled_labels = _cross_fitted(scores, fit, seed)
    temperatures, auto_from = {}, {}
    for name in MODALITIES:
        rows = pooled_names == name
        temperatures[name] = fit_temperature(pooled_scores[rows], pooled_labels[rows])
        probabilities = np.exp(log_softmax(pooled_scores[rows] / temperatures[name]))
        auto_from[name] = max(
            thresholds.min_confidence,
            threshold_for_precision(
                probabilities.max(axis=1, initial=0.0),
                probabilities.argmax(axis=1) == pooled_labels[rows],
                thresholds.target_precision,
            ),
        )
    return replace(fit(scores), temperatures=temperatures), auto_from


def _cross_fitted(
    scores: BranchScores, fit: Callable[[BranchScores], FusionWeights], seed: int
) -> tuple[FloatArray, NDArray[np.str_], NDArray[np.int64]]:
    collected, names, labels = [], [], []
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    for fitted, held_out in folds.split(np.arange(len(scores.labels))):
        weights = fit(scores.rows(fitted))
        for view in scores.rows(held_out).views():
            rows = view.has_text | view.has_image
            collected.append(
                combine(
                    weights, view.text_logits, view.image_logits, view.has_text, view.has_image
                )[rows]
            )
            names.append(modality_names(view.has_text, view.has_image)[rows])
            labels.append(view.labels[rows])
    return np.concatenate(collected), np.concatenate(names), np.concatenate(labels)
