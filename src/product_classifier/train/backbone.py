"""The VGG16 base of a training: its weights, its exported network, the precision that will serve."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
from numpy.typing import NDArray

from product_classifier.core.bundle import Precision
from product_classifier.core.files import sha256_bytes
from product_classifier.core.params import ImageParams
from product_classifier.features.images import PhotoError, preprocess_photo, to_vgg16_input
from product_classifier.modeling.export import convert_to_openvino, hash_weights, save_network
from product_classifier.modeling.networks import has_native_bfloat16, usable_precision
from product_classifier.modeling.vgg16_image_classifier import build_vgg16_base
from product_classifier.train.dataset import Dataset
from product_classifier.train.photo_features import PhotoIndex
from product_classifier.train.weights import (
    ResolvedWeights,
    WeightArrays,
    load_weights,
    write_npz,
)

logger = logging.getLogger(__name__)

QUANTIZATION_PHOTOS = 200  # calibration photos; more changed the ranges by under 1 %


@dataclass(frozen=True)
class Backbone:
    """A base on disk: `weights` (.npz, for Keras) and `network` (.xml/.bin, for inference)."""

    resolved: ResolvedWeights
    weights_sha256: str
    weights: Path
    network: Path
    precision: Precision
    fine_tuned_blocks: int = 0
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def features_name(self) -> str:
        """Names what the base makes of a photo, but for the photo's size and cropping.

        For int8 the weights are not enough: its ranges come from the photos that it was calibrated on.
        """
        if self.precision != "int8":
            return f"{self.weights_sha256}-{self.precision}"
        parts = (self.network, self.network.with_suffix(".bin"))
        return sha256_bytes(b"".join(part.read_bytes() for part in parts)) + "-int8"


def default_precision(params: ImageParams) -> Precision:
    """Gives the precision to start with on this machine; `auto` is bfloat16 where native, else float32."""
    if params.precision != "auto":
        return usable_precision(params.precision)
    return "bfloat16" if has_native_bfloat16() else "float32"


def prepare_backbone(
    resolved: ResolvedWeights,
    params: ImageParams,
    folder: Path,
    *,
    arrays: WeightArrays | None = None,
    fine_tuned_blocks: int = 0,
) -> Backbone:
    """Makes weights file and inference network, or takes them from an earlier training.

    Args:
        resolved: Where the weights came from.
        params: Photo size, pooling and precision.
        folder: Where bases are kept, one folder per weights and shape.
        arrays: Fine-tuned arrays to use instead of those of `resolved`.
        fine_tuned_blocks: How many blocks they were trained in.
    """
    if arrays is None:
        arrays = load_weights(resolved)
    digest = hash_weights(list(arrays))
    place = folder / f"{digest[:16]}-{params.size}-{params.pooled_blocks}"
    network, weights = place / "image_base.xml", place / "vgg16_base.npz"
    if not (place / "done").is_file():
        place.mkdir(parents=True, exist_ok=True)
        base = build_vgg16_base(params.size, params.pooled_blocks)
        base.set_weights(arrays)
        save_network(convert_to_openvino(base), network)
        write_npz(weights, arrays)
        (place / "done").touch()
    precision = default_precision(params)
    return Backbone(
        resolved,
        digest,
        weights,
        network,
        "float32" if precision == "int8" else precision,
        fine_tuned_blocks,
    )


def quantize_base(
    backbone: Backbone, dataset: Dataset, photos: PhotoIndex, params: ImageParams, seed: int
) -> Path:
    """Quantizes the base to int8 with training photos as calibration data; gives the new network's path."""
    cropped = "_cropped" if params.crop else ""
    target = backbone.network.with_name(
        f"image_base_int8_{dataset.fingerprint[:12]}_{seed}{cropped}.xml"
    )
    if target.with_suffix(".done").is_file():
        return target
    rows = [row for row in dataset.sides["train"] if photos.hashes[row]]
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(rows)[:QUANTIZATION_PHOTOS]
    samples: list[NDArray[np.float32]] = []
    for row in chosen:
        try:
            data = dataset.photos.read(dataset.products[row].photo_name) or b""
            samples.append(to_vgg16_input(preprocess_photo(data, params.size, params.crop))[None])
        except PhotoError:
            continue
    network = openvino.Core().read_model(backbone.network)
    quantized = nncf.quantize(
        network,
        nncf.Dataset(samples),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.MIXED,
    )
    save_network(quantized, target)
    target.with_suffix(".done").touch()
    return target
