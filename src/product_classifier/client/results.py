"""Products as they are sent, and answers as they come back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_classifier.client.errors import APIError


@dataclass(frozen=True, slots=True)
class Product:
    """What is known of a product: a title (`designation`) or a photo at least.

    `image` is the file's content or its path; the other fields are given back with the answer.
    """

    designation: str | None = None
    description: str | None = None
    image: bytes | Path | str | None = None
    product_identifier: str | None = None
    product_id: str | None = None
    imageid: str | None = None

    def fields(self) -> dict[str, str]:
        """Gives the texts that are set, by the API's names."""
        names = ("designation", "description", "product_identifier", "product_id", "imageid")
        return {name: str(value) for name in names if (value := getattr(self, name)) is not None}

    def image_bytes(self) -> bytes | None:
        """Gives the photo's content, or None where there is none."""
        if self.image is None or isinstance(self.image, bytes):
            return self.image
        return Path(self.image).read_bytes()


@dataclass(frozen=True, slots=True)
class RankedType:
    """One of the likeliest product types, with its calibrated probability in [0, 1]."""

    code: int
    name_fr: str
    name_en: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The API's answer for one product.

    Attributes:
        code: Product type code.
        label: Its French name.
        confidence: Calibrated probability of `code`, in [0, 1].
        decision: `auto`, or `review` where a person should look.
        threshold: Confidence from which it would have been `auto`; None: never.
        modalities: What the answer was made from, as `text+image`.
        top: The three likeliest types.
        bundle_id: The model that answered.
        photo_error: Why the photo was not used; None where it was, or there was none.
        explanation: What moved the answer, if it was asked for.
        raw: The whole answer.
    """

    code: int
    label: str
    confidence: float
    decision: str
    threshold: float | None
    modalities: str
    top: tuple[RankedType, ...]
    bundle_id: str
    request_id: str | None
    milliseconds: float | None
    photo_error: str | None
    explanation: Mapping[str, Any] | None
    raw: Mapping[str, Any]

    @classmethod
    def from_json(
        cls, content: Mapping[str, Any], shared: Mapping[str, Any] | None = None
    ) -> "Prediction":
        """Reads an answer; of a batch, `shared` is what all its products have in common."""
        both = {**(shared or {}), **content}
        best = both["predictions"][0]
        return cls(
            code=int(best["prediction"]),
            label=str(best["label"]),
            confidence=float(best["confidence"]),
            decision=str(both["decision"]),
            threshold=both.get("threshold"),
            modalities=str(both["modalities"]),
            top=tuple(
                RankedType(
                    int(entry["code"]),
                    str(entry["name_fr"]),
                    str(entry["name_en"]),
                    float(entry["confidence"]),
                )
                for entry in both["top"]
            ),
            bundle_id=str(both["bundle_id"]),
            request_id=both.get("request_id"),
            milliseconds=both.get("milliseconds"),
            photo_error=both.get("photo_error"),
            explanation=both.get("explanation"),
            raw=dict(content),
        )


@dataclass(frozen=True, slots=True)
class ProblemOfOne:
    """Why one product of a batch got no answer; the others have theirs."""

    title: str
    detail: str
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """Answers of a batch, in the order of the products."""

    results: tuple[Prediction | ProblemOfOne, ...]
    bundle_id: str
    request_id: str | None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "BatchAnswer":
        """Reads the answer of `/predict/batch`."""
        shared = {key: content.get(key) for key in ("bundle_id", "request_id", "milliseconds")}
        results = tuple(_one_of_batch(item, shared) for item in content["results"])
        return cls(results, str(content["bundle_id"]), content.get("request_id"))


def _one_of_batch(item: Mapping[str, Any], shared: Mapping[str, Any]) -> Prediction | ProblemOfOne:
    error = item.get("error")
    if not error:
        return Prediction.from_json(item, shared)
    content = error if isinstance(error, Mapping) else {"detail": str(error)}
    title, detail = str(content.get("title") or "Error"), str(content.get("detail") or "")
    return ProblemOfOne(title, detail, dict(item))


def read_answer(status: int, content: Any) -> Mapping[str, Any]:
    """Checks that an answer is a JSON object.

    Raises:
        APIError: it is something else, as the page of a proxy.
    """
    if not isinstance(content, Mapping):
        raise APIError(status, "Unexpected answer", "Expected a JSON object.")
    return content
