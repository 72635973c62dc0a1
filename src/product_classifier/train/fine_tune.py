"""Optional second phase of the image branch: the last VGG16 blocks learn too."""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from product_classifier.core.params import ImageParams
from product_classifier.features.images import PhotoError, preprocess_photo, to_vgg16_input
from product_classifier.modeling.vgg16_image_classifier import (
    build_vgg16_base,
    build_vgg16_image_classifier,
    unfreeze_last_blocks,
)
from product_classifier.train.checkpoints import BranchCheckpoint, train_epochs
from product_classifier.train.dataset import Dataset
from product_classifier.train.determinism import reseed_layers
from product_classifier.train.text_branch import compile_branch
from product_classifier.train.weights import WeightArrays

BATCH_PHOTOS = 32  # 224-pixel activations of VGG16 take about 110 MB per photo while learning


class _PhotoBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Photos of one epoch, decoded as they are needed, mirrored half of the time."""

    def __init__(
        self,
        dataset: Dataset,
        rows: NDArray[np.int64],
        onehot: NDArray[np.float32],
        params: ImageParams,
        mirrored: NDArray[np.bool_],
    ) -> None:
        super().__init__(workers=1)
        self.dataset, self.rows, self.onehot = dataset, rows, onehot
        self.params, self.mirrored = params, mirrored

    def __len__(self) -> int:
        return -(-len(self.rows) // BATCH_PHOTOS)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        window = slice(index * BATCH_PHOTOS, (index + 1) * BATCH_PHOTOS)
        pixels = np.stack(list(self._decode(window)))
        return to_vgg16_input(pixels), self.onehot[window]

    def _decode(self, window: slice) -> Iterator[NDArray[np.uint8]]:
        size = self.params.size
        for row, mirror in zip(self.rows[window], self.mirrored[window], strict=True):
            data = self.dataset.photos.read(self.dataset.products[row].photo_name) or b""
            try:
                pixels = preprocess_photo(data, size, self.params.crop)
            except PhotoError:
                pixels = np.full((size, size, 3), 255, dtype=np.uint8)
            yield pixels[:, ::-1] if mirror else pixels


def fine_tune(
    dataset: Dataset,
    arrays: WeightArrays,
    head: keras.Model,
    usable: NDArray[np.bool_],
    params: ImageParams,
    seed: int,
    folder: Path,
) -> WeightArrays:
    """Trains the last blocks and a copy of the head end to end; gives the new base weights.

    The head itself is trained again afterwards, on features of the new base in the precision that serves.

    Args:
        dataset: Products with split.
        arrays: Base weights to start from.
        head: Trained head, so that the first steps do not destroy the base.
        usable: Which products have a photo, shape `(N,)`.
        params: Number of blocks, epochs, learning rate.
        seed: Of order, dropout and mirroring.
        folder: Where the checkpoint lies.
    """
    train = dataset.sides["train"][usable[dataset.sides["train"]]]
    onehot = np.eye(len(dataset.label_map), dtype=np.float32)[dataset.labels[train]]
    steps = -(-len(train) // BATCH_PHOTOS)

    def build() -> keras.Model:
        keras.utils.set_random_seed(seed)  # whatever was built before must not matter
        base = build_vgg16_base(params.size, params.pooled_blocks)
        base.set_weights(arrays)
        unfreeze_last_blocks(base, params.fine_tune_blocks)
        model = build_vgg16_image_classifier(base, keras.models.clone_model(head))
        model.layers[-1].set_weights(head.get_weights())
        compile_branch(
            model,
            params.fine_tune_learning_rate,
            params.weight_decay,
            params.label_smoothing,
            steps * params.fine_tune_epochs,
        )
        return model

    def run_epoch(model: keras.Model, epoch: int) -> dict[str, float]:
        generator = np.random.default_rng([seed, epoch])
        reseed_layers(model, seed, epoch)
        order = generator.permutation(len(train))
        batches = _PhotoBatches(
            dataset, train[order], onehot[order], params, generator.random(len(train)) < 0.5
        )
        result = model.fit(batches, shuffle=False, verbose=0)
        return {name: float(result.history[name][0]) for name in ("loss", "accuracy")}

    model, _ = train_epochs(
        BranchCheckpoint(folder / "fine_tuning"), build, run_epoch, params.fine_tune_epochs
    )
    names = {layer.name: layer for layer in model.layers}
    return [
        array
        for name in sorted(n for n in names if "_conv" in n)
        for array in names[name].get_weights()
    ]
