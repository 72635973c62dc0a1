"""Late fusion: one weight per class and branch, learned on rows that neither branch was trained on.

`fuse` is the definition; the Keras model in the bundle holds the same weights, and a test proves that they agree.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from product_classifier.core.errors import ArtifactError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

BOTH, TEXT, IMAGE, NOTHING = "text+image", "text", "image", "nothing"
MODALITIES = (BOTH, TEXT, IMAGE)


def log_softmax(logits: NDArray[np.floating]) -> FloatArray:
    """Log-probabilities along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    normalised: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


@dataclass(frozen=True)
class FusionWeights:
    """What turns two branches' logits into calibrated probabilities.

    Shapes: `text`, `image` and `prior` are `(K,)`; `temperatures` has one value above 0 for
    each of `MODALITIES`.
    """

    text: FloatArray
    image: FloatArray
    prior: FloatArray
    temperatures: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Gives the content of the bundle's weights file."""
        return {
            "text": [float(value) for value in self.text],
            "image": [float(value) for value in self.image],
            "prior": [float(value) for value in self.prior],
            "temperatures": dict(self.temperatures),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], classes: int) -> "FusionWeights":
        """Reads the content of a weights file.

        Raises:
            ArtifactError: a part is missing, not finite, not of `classes` values, or not above 0 where it must be.
        """
        try:
            vectors = {
                name: np.asarray(content[name], dtype=np.float64)
                for name in ("text", "image", "prior")
            }
            temperatures = {name: float(content["temperatures"][name]) for name in MODALITIES}
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"The fusion weights are not readable: {error!r}.") from error
        for name, vector in vectors.items():
            if vector.shape != (classes,) or not np.isfinite(vector).all():
                raise ArtifactError(
                    f"Fusion weights '{name}': expected {classes} finite values. "
                    f"Received: shape {vector.shape}, {int(np.isfinite(vector).sum())} finite."
                )
        if vectors["prior"].min(initial=1.0) <= 0:
            raise ArtifactError("The prior must be above 0 for every class.")
        if not all(0 < value < np.inf for value in temperatures.values()):  # NaN fails too
            raise ArtifactError(f"Temperatures must be above 0. Received: {temperatures}.")
        return cls(temperatures=temperatures, **vectors)


def modality_names(has_text: BoolArray, has_image: BoolArray) -> NDArray[np.str_]:
    """Names what each product was judged by, shape `(N,)`."""
    return np.where(
        has_text & has_image, BOTH, np.where(has_text, TEXT, np.where(has_image, IMAGE, NOTHING))
    )


def combine(
    weights: FusionWeights,
    text_logits: FloatArray,
    image_logits: FloatArray,
    has_text: BoolArray,
    has_image: BoolArray,
) -> FloatArray:
    """Weighs the branches' log-probabilities, without temperature.

    Args:
        weights: Fusion weights for K classes.
        text_logits: Shape `(N, K)`; rows without text are ignored.
        image_logits: Shape `(N, K)`; rows without photo are ignored.
        has_text: Shape `(N,)`.
        has_image: Shape `(N,)`.

    Returns:
        Scores, shape `(N, K)`. Where there is neither, the log of the training shares.
    """
    text = np.where(has_text[:, None], weights.text * log_softmax(text_logits), 0.0)
    image = np.where(has_image[:, None], weights.image * log_softmax(image_logits), 0.0)
    scores: FloatArray = text + image
    return np.where((has_text | has_image)[:, None], scores, np.log(weights.prior))


def fuse(
    weights: FusionWeights,
    text_logits: FloatArray,
    image_logits: FloatArray,
    has_text: BoolArray,
    has_image: BoolArray,
) -> FloatArray:
    """Gives calibrated probabilities, shape `(N, K)`; arguments as for `combine`."""
    scores = combine(weights, text_logits, image_logits, has_text, has_image)
    names = modality_names(has_text, has_image)
    temperature = np.ones(len(scores))
    for name, value in weights.temperatures.items():
        temperature[names == name] = value
    probabilities: FloatArray = np.exp(log_softmax(scores / temperature[:, None]))
    return probabilities
