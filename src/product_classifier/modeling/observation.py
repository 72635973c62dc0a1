"""What is observed of one product for drift: numbers and a language, never its words or its photo.

The only definition: training observes its test products (the reference), serving its requests (the window), the drift
report a batch. All of it is what the networks see, so that what changes an answer changes an observation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from product_classifier.features.language import detect_language
from product_classifier.features.text import DESCRIPTION, PAD_ID, TITLE, UNKNOWN_ID
from product_classifier.modeling.predictor import DecodedProduct

LANGUAGE_CHARACTERS = 200  # more of a title tells no more of its language, and costs time
# Every fourth row and every pixel in it: a mean over 12,500 of the 50,176 pixels is within one level of the whole.
ROW_STEP = 4
# ITU-R BT.601, as Pillow's mode L and the catalogue's statistics.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_TITLE_MARK, _DESCRIPTION_MARK = f"{TITLE} ", f"{DESCRIPTION} "


@dataclass(frozen=True, slots=True)
class Observation:
    """One product as drift detection sees it.

    `text_length` counts characters of the cleaned title and description; `unknown_token_rate` is the share, in
    [0, 1], of the tokens that the network reads. `language` is the title's (the description's where there is no
    title); None where there is neither. `brightness` is the mean luma of the pixels that the network
    reads, in [0, 255]; `sharpness` the mean step between two neighbours in a row of them, in [0, 255]; `aspect` is
    width by height of the upright photo before anything is cut off. All three are None without a usable photo.
    """

    text_length: int
    unknown_token_rate: float | None
    language: str | None
    brightness: float | None
    sharpness: float | None
    aspect: float | None
    has_title: bool
    has_description: bool
    has_photo: bool


def observe(product: DecodedProduct, tokens: NDArray[np.int32]) -> Observation:
    """Observes one decoded product.

    Args:
        product: As `Predictor.decode` gives it.
        tokens: Its row of `Predictor.tokenize`, shape `(max_tokens,)`, or that row in a batch of one.
    """
    title, description = _split(product.text)
    brightness = sharpness = None
    if product.pixels is not None:
        brightness, sharpness = _light(product.pixels)
    return Observation(
        text_length=len(title) + len(description),
        unknown_token_rate=_unknown_rate(tokens),
        language=_language(title or description),
        brightness=brightness,
        sharpness=sharpness,
        aspect=product.aspect,
        has_title=bool(title),
        has_description=bool(description),
        has_photo=product.pixels is not None,
    )


def warm_up() -> None:
    """Loads what the first observation would load."""
    detect_language("produit")


def _split(text: str) -> tuple[str, str]:
    """Takes a composed text apart. Its markers are upper case and so never part of a cleaned field."""
    title, _, description = text.partition(_DESCRIPTION_MARK)
    return title.removeprefix(_TITLE_MARK).rstrip(), description


def _unknown_rate(tokens: NDArray[np.int32]) -> float | None:
    seen = int(np.count_nonzero(tokens != PAD_ID))
    return int(np.count_nonzero(tokens == UNKNOWN_ID)) / seen if seen else None


def _language(text: str) -> str | None:
    return detect_language(text[:LANGUAGE_CHARACTERS]) if text else None


def _light(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    luma = pixels[::ROW_STEP].astype(np.float32) @ _LUMA  # (H, W, 3) -> (H / 4, W)
    steps = np.abs(np.diff(luma, axis=1))
    return float(luma.mean()), float(steps.mean())
