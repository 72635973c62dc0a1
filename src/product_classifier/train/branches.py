"""Both branches, trained or taken from an existing bundle, and every product's logits from the exported networks."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import openvino
from numpy.typing import NDArray
from tokenizers import Tokenizer

from product_classifier.core import bundle as parts
from product_classifier.core.bundle import load_bundle
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import sha256_bytes
from product_classifier.core.params import ImageParams, TrainParams
from product_classifier.core.workspace import Workspace
from product_classifier.features.images import IMAGE_VERSION
from product_classifier.features.text import TEXT_VERSION, encode_texts, load_tokenizer
from product_classifier.modeling.export import convert_to_openvino
from product_classifier.modeling.networks import compile_network, run_network
from product_classifier.train.backbone import Backbone, prepare_backbone, quantize_base
from product_classifier.train.checkpoints import History
from product_classifier.train.dataset import Dataset
from product_classifier.train.evaluate import evaluate_scores
from product_classifier.train.fine_tune import fine_tune
from product_classifier.train.fusion_branch import BranchScores
from product_classifier.train.image_branch import ImageBranch, train_image_head
from product_classifier.train.photo_features import PhotoIndex, compute_features, index_photos
from product_classifier.train.probe import reused_branches
from product_classifier.train.text_branch import TextBranch, train_text_branch
from product_classifier.train.weights import ResolvedWeights, load_weights, resolve_weights

logger = logging.getLogger(__name__)

MAX_INT8_LOSS = 0.002  # macro F1 on validation that int8 may cost

FeaturesOf = Callable[[Backbone], tuple[NDArray[np.float32], NDArray[np.bool_]]]


@dataclass(frozen=True)
class Branches:
    """What fusion, evaluation and export need of both branches."""

    text_model: keras.Model
    tokenizer: Tokenizer
    max_tokens: int
    tokens: NDArray[np.int32]
    head: keras.Model
    backbone: Backbone
    image: ImageParams
    features: NDArray[np.float32]
    has_image: NDArray[np.bool_]
    histories: dict[str, History]


def train_branches(
    workspace: Workspace, dataset: Dataset, params: TrainParams, folder: Path
) -> Branches:
    """Trains both branches, from checkpoints in `folder` where a killed training left some."""
    image, seed = params.image, params.seed
    resolved = resolve_weights(image, seed, workspace.root)
    bases = workspace.cache / "backbones"
    features_root = workspace.cache / "features"
    photos = index_photos(dataset)
    backbone = prepare_backbone(resolved, image, bases)
    text = train_text_branch(dataset, params.text, seed, folder)

    def features_of(base: Backbone) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return compute_features(
            dataset,
            photos,
            base.network,
            base.precision,
            image,
            base.features_name,
            features_root,
        )

    features, usable = features_of(backbone)
    checkpoints = _checkpoints(folder, backbone)
    branch = train_image_head(dataset, features, usable, image, seed, checkpoints)
    if image.fine_tune_blocks:
        arrays = fine_tune(
            dataset, load_weights(resolved), branch.head, usable, image, seed, checkpoints
        )
        backbone = prepare_backbone(
            resolved, image, bases, arrays=arrays, fine_tuned_blocks=image.fine_tune_blocks
        )
        features, usable = features_of(backbone)
        branch = train_image_head(
            dataset, features, usable, image, seed, _checkpoints(folder, backbone)
        )
    if image.precision == "int8":
        backbone, branch, features = _try_int8(
            dataset, photos, backbone, branch, features, usable, params, folder, features_of
        )
    return _join(text, branch, backbone, image, features, usable)


def _checkpoints(folder: Path, backbone: Backbone) -> Path:
    """Keeps heads apart by base: `auto` can mean other weights when a killed training is started again."""
    return folder / sha256_bytes(backbone.features_name.encode())[:16]


def _join(
    text: TextBranch,
    branch: ImageBranch,
    backbone: Backbone,
    image: ImageParams,
    features: NDArray[np.float32],
    usable: NDArray[np.bool_],
) -> Branches:
    return Branches(
        text_model=text.model,
        tokenizer=text.tokenizer,
        max_tokens=text.max_tokens,
        tokens=text.tokens,
        head=branch.head,
        backbone=backbone,
        image=image,
        features=features,
        has_image=usable,
        histories={"text": text.history, "image": branch.history},
    )


def _try_int8(
    dataset: Dataset,
    photos: PhotoIndex,
    backbone: Backbone,
    branch: ImageBranch,
    features: NDArray[np.float32],
    usable: NDArray[np.bool_],
    params: TrainParams,
    folder: Path,
    features_of: FeaturesOf,
) -> tuple[Backbone, ImageBranch, NDArray[np.float32]]:
    """Quantizes the base; takes int8 only if validation loses no more than `MAX_INT8_LOSS` macro F1."""
    network = quantize_base(backbone, dataset, photos, params.image, params.seed)
    quantized = replace(backbone, network=network, precision="int8")
    int8_features, _ = features_of(quantized)
    int8_branch = train_image_head(
        dataset,
        int8_features,
        usable,
        params.image,
        params.seed,
        _checkpoints(folder, quantized),
    )
    before = _validation_f1(dataset, branch.head, features, usable)
    after = _validation_f1(dataset, int8_branch.head, int8_features, usable)
    report = {
        "reference": backbone.precision,
        "reference_validation_macro_f1": before,
        "int8_validation_macro_f1": after,
        "allowed_loss": MAX_INT8_LOSS,
        "taken": "int8" if before - after <= MAX_INT8_LOSS else backbone.precision,
    }
    if before - after > MAX_INT8_LOSS:
        logger.warning(
            "int8 costs %.4f macro F1 on validation, more than %.4f: %s is kept",
            before - after,
            MAX_INT8_LOSS,
            backbone.precision,
        )
        return replace(backbone, report=report), branch, features
    return replace(quantized, report=report), int8_branch, int8_features


def _validation_f1(
    dataset: Dataset,
    head: keras.Model,
    features: NDArray[np.float32],
    usable: NDArray[np.bool_],
) -> float:
    rows = dataset.sides["validation"][usable[dataset.sides["validation"]]]
    logits = head.predict(features[rows], batch_size=1024, verbose=0)
    return float(evaluate_scores(logits, dataset.labels[rows])["macro_f1"])


def reuse_branches(workspace: Workspace, dataset: Dataset, params: TrainParams) -> Branches:
    """Takes both branches from `train.reuse_bundle`: only fusion and thresholds are fitted anew.

    Raises:
        ConfigurationError: there is no bundle at that path, it does not know exactly the product codes of the data,
            or it was made with other preprocessing.
        ArtifactError: the bundle is damaged.
    """
    reused_branches(workspace, params.reuse_bundle)
    bundle = load_bundle(workspace.root / params.reuse_bundle)
    manifest = bundle.manifest
    if tuple(manifest.labels) != dataset.label_map.codes:
        new = sorted(set(dataset.label_map.codes) ^ set(manifest.labels))
        raise ConfigurationError(
            "train.branches is reuse, but the bundle's product codes are not the data's. "
            f"They differ in {new[:8]}. Train with branches: train."
        )
    made = (manifest.preprocessing.text_version, manifest.preprocessing.image_version)
    if made != (TEXT_VERSION, IMAGE_VERSION):
        raise ConfigurationError(
            "train.branches is reuse, but the bundle was made with other preprocessing. Expected versions "
            f"{(TEXT_VERSION, IMAGE_VERSION)} of text and image. Received: {made}. Train with branches: train."
        )
    image = params.image.model_copy(
        update={
            "size": manifest.preprocessing.image_size,
            "crop": manifest.preprocessing.crop,
            "pooled_blocks": manifest.backbone.pooled_blocks,
        }
    )
    backbone = Backbone(
        ResolvedWeights(manifest.backbone.weights, manifest.backbone.weights_sha256),
        manifest.backbone.weights_sha256,
        bundle.file(parts.IMAGE_BASE_WEIGHTS),
        bundle.file(parts.IMAGE_BASE_NETWORK),
        manifest.backbone.precision,
        manifest.backbone.fine_tuned_blocks,
        manifest.backbone.precision_report,
    )
    features, usable = compute_features(
        dataset,
        index_photos(dataset),
        backbone.network,
        backbone.precision,
        image,
        backbone.features_name,
        workspace.cache / "features",
    )
    tokenizer = load_tokenizer(bundle.file(parts.TOKENIZER))
    max_tokens = manifest.preprocessing.max_tokens
    return Branches(
        text_model=keras.models.load_model(bundle.file(parts.TEXT_MODEL)),
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        tokens=encode_texts(tokenizer, dataset.texts, max_tokens),
        head=keras.models.load_model(bundle.file(parts.IMAGE_MODEL)),
        backbone=backbone,
        image=image,
        features=features,
        has_image=usable,
        histories={},
    )


@dataclass(frozen=True)
class ExportedBranches:
    """The branches in the inference format, and every product's scores from exactly these networks."""

    text: openvino.Model
    head: openvino.Model
    scores: BranchScores
    agreement: dict[str, float]


def export_branches(branches: Branches, dataset: Dataset) -> ExportedBranches:
    """Exports text branch and head, scores all products with the exports, and compares with Keras on the test rows.

    Fusion and figures stand on the exported networks: what is measured is what serves.
    """
    text = convert_to_openvino(branches.text_model)
    head = convert_to_openvino(branches.head)
    text_logits = run_network(compile_network(text, "float32"), branches.tokens)
    image_logits = run_network(compile_network(head, "float32"), branches.features)
    scores = BranchScores(
        text_logits.astype(np.float64),
        image_logits.astype(np.float64),
        dataset.has_text,
        branches.has_image,
        dataset.labels,
    )
    test = dataset.sides["test"]
    agreement = {
        **_agreement(
            "text",
            branches.text_model.predict(branches.tokens[test], batch_size=512, verbose=0),
            text_logits[test],
            dataset.labels[test],
        ),
        **_agreement(
            "image",
            branches.head.predict(branches.features[test], batch_size=512, verbose=0),
            image_logits[test],
            dataset.labels[test],
        ),
    }
    return ExportedBranches(text, head, scores, agreement)


def _agreement(
    name: str,
    keras_logits: NDArray[np.float32],
    exported: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> dict[str, float]:
    reference = evaluate_scores(keras_logits, labels)
    export = evaluate_scores(exported, labels)
    same = keras_logits.argmax(axis=1) == exported.argmax(axis=1)
    return {
        f"{name}_top1_agreement": float(np.mean(same)),
        f"{name}_max_difference": float(np.max(np.abs(keras_logits - exported))),
        f"{name}_macro_f1_difference": float(export["macro_f1"] - reference["macro_f1"]),
    }
