"""What the prediction routes take and give. Texts are limited, and cleaned of what no answer could hold."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_TITLE = 1_000  # characters; the longest title of the Rakuten catalogue has 250
MAX_DESCRIPTION = 50_000  # the longest description there has 12,451
MAX_IDENTIFIER = 64
MAX_FILE_NAME = 255


def _clean(value: Any) -> Any:
    """Replaces lone surrogates: they can't be encoded, neither for the tokenizer nor for the answer."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


def _identifier(value: Any) -> Any:
    # Clients of the earlier system send numbers.
    number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if number and abs(value) < 10**MAX_IDENTIFIER else _clean(value)


Title = Annotated[str, BeforeValidator(_clean), Field(max_length=MAX_TITLE)]
Description = Annotated[str, BeforeValidator(_clean), Field(max_length=MAX_DESCRIPTION)]
Identifier = Annotated[str, BeforeValidator(_identifier), Field(max_length=MAX_IDENTIFIER)]
FileName = Annotated[str, BeforeValidator(_clean), Field(min_length=1, max_length=MAX_FILE_NAME)]


class ProductFields(BaseModel):
    """The texts and names of one product, as they come in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product_identifier: Identifier | None = None
    designation: Title | None = None
    description: Description | None = None
    product_id: Identifier | None = None
    imageid: Identifier | None = None


class BatchProduct(ProductFields):
    """One product of a batch; `image` names one of the uploaded files."""

    image: FileName | None = None


class LegacyPrediction(BaseModel):
    """The best answer in the form of the earlier system."""

    label: str = Field(description="French name")
    confidence: float = Field(ge=0, le=1)
    prediction: int = Field(description="Product type code")


class Candidate(BaseModel):
    """One of the three most likely product types."""

    code: int
    name_fr: str
    name_en: str
    confidence: float = Field(ge=0, le=1, description="Calibrated probability")


class BranchFigures(BaseModel):
    """What one modality did to the predicted code."""

    confidence_without: float
    confidence_change: float
    log_probability_change: float


class WordFigures(BaseModel):
    """What one word did to the predicted code."""

    word: str
    field: Literal["designation", "description"]
    drop: float = Field(description="Confidence that is lost without the word")


class ExplanationFigures(BaseModel):
    """How the answer came about, by leaving parts out."""

    modalities: dict[str, BranchFigures]
    words: list[WordFigures]


class ProductAnswer(BaseModel):
    """The answer for one product."""

    predictions: list[LegacyPrediction]
    message: str = Field(description="In French, for people")
    top: list[Candidate]
    decision: Literal["auto", "review"]
    threshold: float | None = Field(
        description="Confidence from which this passes without review; null: never"
    )
    modalities: str = Field(description="text+image, text or image")
    photo_error: str | None = Field(description="Why the photo was not used")
    product_identifier: str | None = None
    product_id: str | None = None
    imageid: str | None = None


class PredictAnswer(ProductAnswer):
    """The answer of `POST /predict`."""

    bundle_id: str
    request_id: str | None
    milliseconds: float
    explanation: ExplanationFigures | None = Field(None, description="Only with explain=true")
    explanation_missing: str | None = Field(None, description="Why there is no explanation")


class ItemError(BaseModel):
    """Why one product of a batch has no answer."""

    status: int = Field(description="What POST /predict would have answered")
    title: str
    detail: str


class RefusedProduct(BaseModel):
    """A product of a batch without an answer."""

    error: ItemError
    product_identifier: str | None = None
    product_id: str | None = None
    imageid: str | None = None


class BatchAnswer(BaseModel):
    """The answer of `POST /predict/batch`: one result per product, in their order."""

    results: list[ProductAnswer | RefusedProduct]
    bundle_id: str
    request_id: str | None
    milliseconds: float
    message: str
