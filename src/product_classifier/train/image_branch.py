"""Training of the image branch's head on cached features."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from product_classifier.core.params import ImageParams
from product_classifier.modeling.vgg16_image_classifier import build_image_head
from product_classifier.train.checkpoints import BranchCheckpoint, History, train_epochs
from product_classifier.train.dataset import Dataset
from product_classifier.train.determinism import reseed_layers
from product_classifier.train.text_branch import compile_branch, epoch_metrics


@dataclass(frozen=True)
class ImageBranch:
    """A trained head."""

    head: keras.Model
    history: History


def train_image_head(
    dataset: Dataset,
    features: NDArray[np.float32],
    usable: NDArray[np.bool_],
    params: ImageParams,
    seed: int,
    folder: Path,
) -> ImageBranch:
    """Trains the head on training rows with a photo; validation rows are only watched.

    Args:
        dataset: Products with split.
        features: Shape `(N, F)`.
        usable: Which products have a photo, shape `(N,)`.
        params: Hyperparameters.
        seed: Of initialisation, order and dropout.
        folder: Where the checkpoint lies.
    """
    train = dataset.sides["train"][usable[dataset.sides["train"]]]
    validation = dataset.sides["validation"][usable[dataset.sides["validation"]]]
    classes = len(dataset.label_map)
    onehot = np.eye(classes, dtype=np.float32)[dataset.labels[train]]
    steps = -(-len(train) // params.batch_size)

    def build() -> keras.Model:
        keras.utils.set_random_seed(seed)  # whatever was built before must not matter
        head = build_image_head(
            features[train].mean(axis=0),
            features[train].std(axis=0) + 1e-6,
            classes=classes,
            hidden_units=params.hidden_units,
            dropout=params.dropout,
            seed=seed,
        )
        compile_branch(
            head,
            params.learning_rate,
            params.weight_decay,
            params.label_smoothing,
            steps * params.epochs,
        )
        return head

    def run_epoch(model: keras.Model, epoch: int) -> dict[str, float]:
        reseed_layers(model, seed, epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(train))
        result = model.fit(
            features[train[order]],
            onehot[order],
            batch_size=params.batch_size,
            shuffle=False,
            verbose=0,
        )
        return epoch_metrics(model, result, features[validation], dataset.labels[validation])

    head, history = train_epochs(
        BranchCheckpoint(folder / "image_head"), build, run_epoch, params.epochs
    )
    return ImageBranch(head, history)
