"""One loaded bundle, ready to answer: what a request holds on to from its first to its last step."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from product_classifier.core.bundle import IMAGE_BASE_NETWORK, Manifest
from product_classifier.core.errors import ArtifactError
from product_classifier.modeling import observation as observing
from product_classifier.modeling.observation import Observation, observe
from product_classifier.modeling.photo_features import PhotoFeatureExtractor
from product_classifier.modeling.predictor import Prediction, Predictor, ProductInput

Hint = Literal["THROUGHPUT", "LATENCY"]


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds that one product spent, and where."""

    wait: float
    decode: float
    text: float  # words to tokens, and the text network
    image: float  # the photo network, and what turns its features into logits
    fusion: float  # both together, and the decision


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer for one product, with what an explanation needs: never the photo itself."""

    prediction: Prediction
    text: str
    features: NDArray[np.float32]  # photo features (1, F); zeros without a photo
    has_image: bool
    phases: Phases
    observation: Observation


@dataclass(frozen=True)
class LiveModel:
    """A bundle with its networks compiled and run once. Never changed: a swap puts another one in its place."""

    predictor: Predictor
    loaded_at: float  # seconds since the epoch
    lone_extractor: PhotoFeatureExtractor  # for a photo that has all processors to itself

    @classmethod
    def load(cls, path: Path, hint: Hint = "THROUGHPUT") -> "LiveModel":
        """Verifies every file of the bundle at `path`, sets it up and warms it up.

        Raises:
            ArtifactError: the bundle is missing, damaged, of another schema, or its networks do not answer.
        """
        try:
            predictor = Predictor.load(path, hint)
            lone_extractor = _lone_extractor(predictor, hint)
            _warm_up(predictor, lone_extractor)
        except ArtifactError:
            raise
        except (
            Exception
        ) as error:  # intact by its hashes and still no model: a fault of who made it
            raise ArtifactError(
                f"Bundle {path} can't be loaded: {type(error).__name__}: {error}"
            ) from error
        return cls(predictor, time.time(), lone_extractor)

    @property
    def bundle_id(self) -> str:
        """Short name of the bundle's content."""
        return self.predictor.bundle.bundle_id

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.predictor.bundle.manifest

    @property
    def path(self) -> Path:
        """Where the bundle lies."""
        return self.predictor.bundle.path

    @property
    def precision(self) -> str:
        """What photos are really calculated in on this machine."""
        return self.predictor.extractor.precision

    @property
    def warmed(self) -> bool:
        """Whether every network has answered once: there is no other way to have a LiveModel."""
        return True

    def score(
        self, product: ProductInput, wait: float = 0.0, alone: Callable[[], bool] = lambda: False
    ) -> Scored:
        """Answers for one product; safe for many threads at once.

        Args:
            product: What to score.
            wait: Seconds that it has waited; only noted.
            alone: Asked before the photo is computed: whether nothing else wants the processors.
        """
        predictor, times = self.predictor, [time.perf_counter()]
        decoded = predictor.decode(product)
        times.append(time.perf_counter())
        tokens = predictor.tokenize([decoded.text])
        text_logits = predictor.token_logits(tokens)
        times.append(time.perf_counter())
        extractor = self.lone_extractor if alone() else predictor.extractor
        features = extractor.extract([decoded.pixels])
        image_logits = predictor.image_logits(features)
        times.append(time.perf_counter())
        has_text, has_image = bool(decoded.text), decoded.pixels is not None
        probabilities = predictor.combine(
            text_logits, image_logits, np.array([has_text]), np.array([has_image])
        )
        [prediction] = predictor.encode([decoded], probabilities)
        times.append(time.perf_counter())
        phases = Phases(wait, *(end - start for start, end in pairwise(times)))
        observation = observe(decoded, tokens)
        return Scored(prediction, decoded.text, features, has_image, phases, observation)


def _lone_extractor(predictor: Predictor, hint: Hint) -> PhotoFeatureExtractor:
    """Compiles the photo network a second time, with all processors on one photo.

    Streams of one processor each give the most photos per second, and a lone photo then takes as long as on a machine
    with one processor.
    """
    if hint == "LATENCY" or predictor.extractor.requests == 1:
        return predictor.extractor
    network = predictor.bundle.file(IMAGE_BASE_NETWORK)
    return PhotoFeatureExtractor(network, predictor.bundle.manifest.backbone.precision, "LATENCY")


def _warm_up(predictor: Predictor, lone_extractor: PhotoFeatureExtractor) -> None:
    """Runs every stream once, so that the first caller does not pay for what is set up on first use.

    Raises:
        ArtifactError: an answer is not finite.
    """
    size = predictor.bundle.manifest.preprocessing.image_size
    blank = np.full((size, size, 3), 255, dtype=np.uint8)
    features = predictor.extractor.extract([blank] * (predictor.extractor.requests + 1))
    lone_extractor.extract([blank])
    observing.warm_up()
    probabilities = predictor.fuse(["[TITLE] produit"], features[:1], np.array([True]))
    if not np.isfinite(probabilities).all():
        raise ArtifactError(
            f"Bundle {predictor.bundle.bundle_id} gives answers that are no numbers."
        )
