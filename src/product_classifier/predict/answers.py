"""What is said about one row, in the form that checkpoints and parts hold."""

from dataclasses import asdict, dataclass
from typing import Any

from product_classifier.modeling.predictor import Prediction
from product_classifier.predict.rows import ScoringRow

# A fixed number of decimals: what is below is rounding of the arithmetic, not knowledge.
DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one row of the file; `top` is empty where `error` says why there is none."""

    position: int
    line: int
    row: int | None
    product_id: int | None
    image_id: int | None
    top: tuple[tuple[int, float], ...] = ()
    decision: str = ""
    threshold: float | None = None
    modalities: str = ""
    error: str | None = None
    photo_error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives the answer as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Answer":
        """Reads what `to_json` gave.

        Raises:
            TypeError: a field is missing or unknown.
        """
        top = tuple((int(code), float(confidence)) for code, confidence in content["top"])
        return cls(**{**content, "top": top})


def refuse(row: ScoringRow, error: str, photo_error: str | None = None) -> Answer:
    """Says why a row has no answer."""
    product = row.product
    return Answer(
        row.position,
        row.line,
        row.row,
        product.product_id if product else None,
        product.image_id if product else None,
        error=error,
        photo_error=photo_error,
    )


def answer(row: ScoringRow, prediction: Prediction, photo_error: str | None) -> Answer:
    """Says what the model says about a row."""
    product = row.product
    return Answer(
        row.position,
        row.line,
        row.row,
        product.product_id if product else None,
        product.image_id if product else None,
        top=tuple(
            (int(ranked.code), round(ranked.confidence, DECIMALS)) for ranked in prediction.top
        ),
        decision=prediction.decision,
        threshold=round(prediction.threshold, DECIMALS),
        modalities=prediction.modalities,
        photo_error=photo_error,
    )
