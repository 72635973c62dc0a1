"""From products to answers: the one way that batch scoring and serving share. No TensorFlow.

Four steps, each usable alone: set up (`Predictor.load`), `decode`, `score`, `encode`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from product_classifier.core import bundle as parts
from product_classifier.core.bundle import Bundle, Preprocessing, load_bundle
from product_classifier.core.errors import ArtifactError
from product_classifier.core.files import read_json
from product_classifier.features.images import IMAGE_VERSION, PhotoError, prepare_photo
from product_classifier.features.labels import LabelMap
from product_classifier.features.text import (
    TEXT_VERSION,
    compose_text,
    encode_texts,
    load_tokenizer,
)
from product_classifier.modeling.calibration import NEVER
from product_classifier.modeling.fusion import (
    NOTHING,
    FloatArray,
    FusionWeights,
    fuse,
    modality_names,
)
from product_classifier.modeling.networks import RequestPool, compile_network
from product_classifier.modeling.photo_features import PhotoFeatureExtractor

AUTO, REVIEW = "auto", "review"
TOP = 3


@dataclass(frozen=True, slots=True)
class ProductInput:
    """What is known of one product; any part may be missing."""

    title: str | None = None
    description: str | None = None
    photo: bytes | None = None


@dataclass(frozen=True, slots=True)
class DecodedProduct:
    """A product ready for the networks: composed text, pixels `(size, size, 3)` uint8 or None, and why None.

    `aspect` is width by height of the photo as it came; None without a usable one.
    """

    text: str
    pixels: NDArray[np.uint8] | None
    photo_error: str | None = None
    aspect: float | None = None


def decode_product(product: ProductInput, preprocessing: Preprocessing) -> DecodedProduct:
    """Prepares one product; a photo that can't be used is left out, with the reason."""
    text = compose_text(product.title, product.description)
    if product.photo is None:
        return DecodedProduct(text, None)
    try:
        photo = prepare_photo(product.photo, preprocessing.image_size, preprocessing.crop)
    except PhotoError as error:
        return DecodedProduct(text, None, str(error))
    return DecodedProduct(text, photo.pixels, aspect=photo.width / photo.height)


@dataclass(frozen=True, slots=True)
class RankedCode:
    """A product code with its calibrated probability in [0, 1]."""

    code: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one product."""

    top: tuple[RankedCode, ...]
    modalities: str
    decision: Literal["auto", "review"]
    threshold: float
    photo_error: str | None = None

    @property
    def code(self) -> int:
        """The most likely product code."""
        return self.top[0].code

    @property
    def confidence(self) -> float:
        """Calibrated probability of `code`."""
        return self.top[0].confidence


class Predictor:
    """Scores products with one bundle. Holds no state but the bundle's: many threads may call it at once."""

    def __init__(
        self, bundle: Bundle, hint: Literal["THROUGHPUT", "LATENCY"] = "THROUGHPUT"
    ) -> None:
        manifest = bundle.manifest
        made = (manifest.preprocessing.text_version, manifest.preprocessing.image_version)
        if made != (TEXT_VERSION, IMAGE_VERSION):
            raise ArtifactError(
                f"Bundle {bundle.bundle_id} was made with other preprocessing. Expected versions "
                f"{(TEXT_VERSION, IMAGE_VERSION)} of text and image. Received: {made}. Train again."
            )
        self.bundle = bundle
        self.labels = LabelMap.from_mapper(read_json(bundle.file(parts.MAPPER)))
        self.weights = FusionWeights.from_json(
            read_json(bundle.file(parts.FUSION_WEIGHTS)), len(self.labels)
        )
        self.tokenizer = load_tokenizer(bundle.file(parts.TOKENIZER))
        self._text = RequestPool(compile_network(bundle.file(parts.TEXT_NETWORK), "float32"))
        self._head = RequestPool(compile_network(bundle.file(parts.IMAGE_HEAD_NETWORK), "float32"))
        self.extractor = PhotoFeatureExtractor(
            bundle.file(parts.IMAGE_BASE_NETWORK), manifest.backbone.precision, hint
        )

    @classmethod
    def load(cls, path: Path, hint: Literal["THROUGHPUT", "LATENCY"] = "THROUGHPUT") -> "Predictor":
        """Verifies the bundle at `path` and sets its networks up.

        Raises:
            ArtifactError: the bundle is missing, damaged, or made by another schema or preprocessing.
        """
        return cls(load_bundle(path), hint)

    def decode(self, product: ProductInput) -> DecodedProduct:
        """Prepares one product as `decode_product` does."""
        return decode_product(product, self.bundle.manifest.preprocessing)

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Turns composed texts into what the text network reads; shape `(N, max_tokens)`."""
        return encode_texts(self.tokenizer, texts, self.bundle.manifest.preprocessing.max_tokens)

    def token_logits(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores the rows of `tokenize`; shape `(N, K)`."""
        return self._text.run(tokens)

    def text_logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Scores composed texts; shape `(N, K)`."""
        return self.token_logits(self.tokenize(texts))

    def image_logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores photo features `(N, F)`; shape `(N, K)`."""
        return self._head.run(features)

    def fuse(
        self,
        texts: Sequence[str],
        features: NDArray[np.float32],
        has_image: NDArray[np.bool_],
    ) -> FloatArray:
        """Gives calibrated probabilities `(N, K)` from composed texts and photo features `(N, F)`."""
        has_text = np.array([bool(text) for text in texts], dtype=bool)
        return self.combine(
            self.text_logits(texts), self.image_logits(features), has_text, has_image
        )

    def combine(
        self,
        text_logits: NDArray[np.float32],
        image_logits: NDArray[np.float32],
        has_text: NDArray[np.bool_],
        has_image: NDArray[np.bool_],
    ) -> FloatArray:
        """Gives calibrated probabilities `(N, K)` from the logits of both branches, `(N, K)` each."""
        return fuse(
            self.weights,
            text_logits.astype(np.float64),
            image_logits.astype(np.float64),
            has_text,
            has_image,
        )

    def score(self, products: Sequence[DecodedProduct]) -> FloatArray:
        """Gives calibrated probabilities for decoded products, shape `(N, K)`."""
        features = self.extractor.extract(product.pixels for product in products)
        has_image = np.array([product.pixels is not None for product in products])
        return self.fuse([product.text for product in products], features, has_image)

    def encode(
        self, products: Sequence[DecodedProduct], probabilities: FloatArray
    ) -> list[Prediction]:
        """Turns probabilities into answers with top codes and decision."""
        has_text = np.array([bool(product.text) for product in products])
        has_image = np.array([product.pixels is not None for product in products])
        names = modality_names(has_text, has_image)
        auto_from = self.bundle.manifest.thresholds.auto_from
        answers = []
        for product, name, row in zip(products, names, probabilities, strict=True):
            order = np.argsort(-row, kind="stable")[:TOP]
            top = tuple(RankedCode(self.labels.codes[i], float(row[i])) for i in order)
            threshold = auto_from[str(name)] if name != NOTHING else NEVER
            decision: Literal["auto", "review"] = (
                "auto" if top[0].confidence >= threshold else "review"
            )
            answers.append(Prediction(top, str(name), decision, threshold, product.photo_error))
        return answers

    def predict(self, products: Sequence[ProductInput]) -> list[Prediction]:
        """Answers for some products at once, in order."""
        if not products:
            return []
        decoded = [self.decode(product) for product in products]
        return self.encode(decoded, self.score(decoded))
