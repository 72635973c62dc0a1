"""VGG16 image branch: the base that turns a photo into features, and the head that classifies them."""

import keras
import numpy as np
from numpy.typing import NDArray

# Filters of the 13 convolutions by block. Source: https://arxiv.org/abs/1409.1556, table 1, configuration D.
BLOCKS: tuple[tuple[int, ...], ...] = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


def build_vgg16_base(size: int, pooled_blocks: int) -> keras.Model:
    """Builds VGG16 without its top, with global average pooling after the last blocks.

    Args:
        size: Pixels per side.
        pooled_blocks: From how many of the last blocks features are taken (1 is the usual VGG16 pooling).

    Returns:
        Model from `(B, size, size, 3)`, float32 as `features.images.to_vgg16_input` gives it, to `(B, F)`, float32.
        Layers are named as in `keras.applications.VGG16`.
    """
    pixels = keras.Input((size, size, 3), name="pixels")
    x, pooled = pixels, []
    for block, filters in enumerate(BLOCKS, start=1):
        for layer, count in enumerate(filters, start=1):
            x = keras.layers.Conv2D(
                count, 3, padding="same", activation="relu", name=f"block{block}_conv{layer}"
            )(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        pooled.append(keras.layers.GlobalAveragePooling2D(name=f"block{block}_average")(x))
    kept = pooled[-pooled_blocks:]
    features = kept[0] if len(kept) == 1 else keras.layers.Concatenate(name="features")(kept)
    return keras.Model(pixels, features, name="vgg16_base")


def random_vgg16_weights(seed: int) -> list[NDArray[np.float32]]:
    """Draws He-normal weights in the order of `Model.get_weights`; the same seed gives the same arrays.

    Keras's default (Glorot) lets activations vanish over 13 layers, so that the features carry nothing.
    Source: https://arxiv.org/abs/1502.01852, section 2.2.
    """
    generator = np.random.default_rng(seed)
    weights: list[NDArray[np.float32]] = []
    channels = 3
    for filters in (count for block in BLOCKS for count in block):
        deviation = np.sqrt(2.0 / (9 * channels))
        kernel = generator.standard_normal((3, 3, channels, filters), dtype=np.float32)
        weights += [kernel * np.float32(deviation), np.zeros(filters, dtype=np.float32)]
        channels = filters
    return weights


def feature_size(pooled_blocks: int) -> int:
    """Counts the features of `build_vgg16_base`."""
    return sum(filters[-1] for filters in BLOCKS[-pooled_blocks:])


def build_image_head(
    mean: NDArray[np.float32],
    deviation: NDArray[np.float32],
    *,
    classes: int,
    hidden_units: int,
    dropout: float,
    seed: int,
) -> keras.Model:
    """Builds the head that classifies VGG16 features.

    Args:
        mean: Mean of each feature over the training photos, shape `(F,)`.
        deviation: Standard deviation of each, shape `(F,)`, above 0.
        classes: Number of product codes.
        hidden_units: Width of the hidden layer.
        dropout: Share of hidden units that are left out while learning.
        seed: Of the dropout; initial weights follow Keras's global seed.

    Returns:
        Model from features `(B, F)`, float32, to logits `(B, classes)`, float32.
    """
    features = keras.Input((len(mean),), name="features")
    # Constants as weights of a layer that Keras can save and OpenVINO can fold.
    x = keras.layers.Normalization(mean=mean, variance=np.square(deviation), name="standardise")(
        features
    )
    x = keras.ops.clip(x, -5.0, 5.0)  # a photo unlike all others must not shout
    x = keras.layers.Dense(hidden_units, activation="gelu", name="hidden")(x)
    x = keras.layers.Dropout(dropout, seed=seed)(x)
    return keras.Model(
        features, keras.layers.Dense(classes, name="image_logits")(x), name="vgg16_image_classifier"
    )


def build_vgg16_image_classifier(base: keras.Model, head: keras.Model) -> keras.Model:
    """Joins base and head: photo in, logits out. For fine-tuning and for use outside the bundle."""
    return keras.Model(base.input, head(base.output), name="vgg16")


def unfreeze_last_blocks(base: keras.Model, count: int) -> list[str]:
    """Lets only the last `count` of VGG16's five blocks learn; gives the names of those layers."""
    first = len(BLOCKS) - count + 1
    names = []
    for layer in base.layers:
        block = int(layer.name[5]) if layer.name.startswith("block") else 0
        layer.trainable = block >= first
        if layer.trainable and layer.weights:
            names.append(layer.name)
    return names
