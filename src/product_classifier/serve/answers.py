"""From what the engine says to what the API answers: names, French message, and what is no answer."""

import math

from product_classifier.features.images import FORMATS
from product_classifier.modeling.fusion import NOTHING
from product_classifier.modeling.predictor import Prediction
from product_classifier.serve.live_model import LiveModel
from product_classifier.serve.schemas import (
    Candidate,
    LegacyPrediction,
    ProductAnswer,
    ProductFields,
)
from product_classifier.web.problems import Problem

DECIMALS = 6  # as batch prediction: what is below is rounding of the arithmetic
_WRONG_FORMAT = f"The photo is none of {', '.join(FORMATS)}."


def check_product(product: ProductFields, has_photo: bool) -> None:
    """Lets only products with a title or a photo through.

    Raises:
        Problem: 422, there is neither.
    """
    if not has_photo and not (product.designation or "").strip():
        raise Problem(
            422, "Unprocessable Content", "Either designation or image is required. Received: none."
        )


def refusal(prediction: Prediction) -> Problem | None:
    """Gives the problem where nothing usable was there to judge by; None where there is an answer."""
    if prediction.modalities != NOTHING:
        return None
    if prediction.photo_error is None:
        return Problem(422, "Unprocessable Content", "The texts hold no usable character.")
    if prediction.photo_error == _WRONG_FORMAT:
        return Problem(415, "Unsupported Media Type", prediction.photo_error)
    return Problem(422, "Unprocessable Content", prediction.photo_error)


def encode_answer(
    model: LiveModel, product: ProductFields, prediction: Prediction, photo_error: str | None
) -> ProductAnswer:
    """Says in full what the model says about one product."""
    names = model.manifest.names
    top = [
        Candidate(
            code=ranked.code,
            name_fr=names[str(ranked.code)].fr,
            name_en=names[str(ranked.code)].en,
            confidence=round(min(ranked.confidence, 1.0), DECIMALS),
        )
        for ranked in prediction.top
    ]
    best = top[0]
    never = not math.isfinite(prediction.threshold) or prediction.threshold > 1
    return ProductAnswer(
        predictions=[
            LegacyPrediction(label=best.name_fr, confidence=best.confidence, prediction=best.code)
        ],
        message=_message(best, prediction.decision),
        top=top,
        decision=prediction.decision,
        threshold=None if never else round(prediction.threshold, DECIMALS),
        modalities=prediction.modalities,
        photo_error=photo_error or prediction.photo_error,
        product_identifier=product.product_identifier,
        product_id=product.product_id,
        imageid=product.imageid,
    )


def _message(best: Candidate, decision: str) -> str:
    percent = f"{100 * best.confidence:.0f}"
    said = f"Catégorie prédite : {best.name_fr} (code {best.code}), confiance {percent} %."
    return said if decision == "auto" else f"{said} À vérifier par une personne."
