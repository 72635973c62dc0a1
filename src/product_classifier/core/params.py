"""Hyperparameters: what changes the model. Read from `params.yaml`, tracked by DVC, logged to MLflow.

The models are frozen and refuse unknown keys, so a misspelt name stops the run instead of being ignored.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from product_classifier.core.errors import ConfigurationError

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]


class _Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SampleParams(_Params):
    """The generated catalogue that a fresh clone runs on."""

    products: Annotated[int, Field(ge=270)] = 1600
    unlabelled: Annotated[int, Field(ge=1)] = 240
    seed: Annotated[int, Field(ge=0)] = 7


class SplitParams(_Params):
    """Shares of the labelled products; they add up to 1."""

    train: Fraction = 0.70
    validation: Fraction = 0.15
    test: Fraction = 0.15
    seed: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _adds_up(self) -> "SplitParams":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6 or min(self.train, self.validation, self.test) <= 0:
            raise ValueError(
                f"train, validation and test must be above 0 and add up to 1. Received: {total:g}."
            )
        return self


class ValidationParams(_Params):
    """What a catalogue must fulfil before it is published."""

    max_bad_photos_fraction: Fraction = 0.05
    max_empty_descriptions_fraction: Fraction = 0.80
    min_products_per_class: PositiveInt = 4
    max_offenders_shown: PositiveInt = 5


class IngestParams(_Params):
    """Import, validation and split."""

    sample: SampleParams = SampleParams()
    split: SplitParams = SplitParams()
    validation: ValidationParams = ValidationParams()
    photo_shards: Annotated[int, Field(ge=1, le=256)] = 64


class TextParams(_Params):
    """Text branch: subword tokenizer, embedding, bidirectional LSTM."""

    vocabulary_size: Annotated[int, Field(ge=300)] = 16000
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 64
    embedding_dim: PositiveInt = 128
    lstm_units: PositiveInt = 96
    dropout: Fraction = 0.4
    token_dropout: Fraction = 0.10
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 20
    min_steps: Annotated[int, Field(ge=0)] = (
        800  # a small catalogue gets more epochs until it has these
    )
    label_smoothing: Fraction = 0.05
    field_dropout: Fraction = 0.15
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4


class ImageParams(_Params):
    """Image branch: VGG16 without its top, pooled features, a small head."""

    weights: str = "auto"  # imagenet, random, auto, or the path of a weights file
    size: Annotated[int, Field(ge=32, le=512)] = 224  # pixels per side
    crop: bool = False  # cut white borders off; costs accuracy where framing tells types apart
    pooled_blocks: Annotated[int, Field(ge=1, le=5)] = 2
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    fine_tune_blocks: Annotated[int, Field(ge=0, le=5)] = 0
    fine_tune_epochs: PositiveInt = 2
    fine_tune_learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    hidden_units: PositiveInt = 512
    dropout: Fraction = 0.5
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 5e-2
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 60
    label_smoothing: Fraction = 0.05


class FusionParams(_Params):
    """Fusion of both branches, fitted on the validation split."""

    l2: Annotated[float, Field(ge=0)] = 3e-2
    modality_dropout: Fraction = 0.25


class ThresholdParams(_Params):
    """When an answer may pass without review."""

    target_precision: Annotated[float, Field(gt=0, lt=1)] = 0.98
    min_confidence: Fraction = 0.5  # below it an answer is rather wrong than right: always review


class TrainParams(_Params):
    """Training of one candidate bundle."""

    seed: Annotated[int, Field(ge=0)] = 42
    branches: Literal["train", "reuse"] = "train"
    reuse_bundle: str = "models/champion"
    text: TextParams = TextParams()
    image: ImageParams = ImageParams()
    fusion: FusionParams = FusionParams()
    thresholds: ThresholdParams = ThresholdParams()


class GateParams(_Params):
    """Absolute floors, on the test split, that a candidate must clear to become champion."""

    min_accuracy: Fraction = 0.60
    min_macro_f1: Fraction = 0.60
    max_calibration_error: Fraction = 0.15


class PredictParams(_Params):
    """Batch scoring."""

    chunk_products: PositiveInt = 256  # rows per checkpoint: what a kill can cost


class Params(_Params):
    """The whole of `params.yaml`."""

    ingest: IngestParams = IngestParams()
    train: TrainParams = TrainParams()
    gate: GateParams = GateParams()
    predict: PredictParams = PredictParams()


def parse_params(content: Any, origin: str = "params.yaml") -> Params:
    """Checks already parsed parameters.

    Raises:
        ConfigurationError: a key is unknown or a value not allowed; names each one.
    """
    try:
        return Params.model_validate(content or {})
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}. Received: {e['input']!r}"
            for e in error.errors()
        ]
        raise ConfigurationError(f"{origin} is not usable. " + "; ".join(lines)) from None


def load_params(path: Path) -> Params:
    """Reads and checks `params.yaml`; what it leaves out has the default shown in this module.

    Raises:
        ConfigurationError: the file is missing, no YAML, or holds a key or value that is not allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"No parameters at {path}. Run from the project's folder."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {error}") from None
    return parse_params(content, str(path))
