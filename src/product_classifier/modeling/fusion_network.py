"""The fusion as a Keras model: both branches joined, from token ids and photo features to probabilities."""

import keras
import numpy as np

from product_classifier.modeling.fusion import BOTH, IMAGE, TEXT, FusionWeights


def without_optimizer(model: keras.Model) -> keras.Model:
    """Gives the same layers as a model that was never compiled.

    Keras 3.15 ignores `include_optimizer` when it saves a `.keras` file, and an optimizer is twice the weights.
    """
    return keras.Model(model.input, model.output, name=model.name)


def build_concatenated_model(
    text_model: keras.Model, image_head: keras.Model, weights: FusionWeights
) -> keras.Model:
    """Joins the branches with fixed fusion weights.

    Built from standard operations alone, so that it loads without this package.

    Returns:
        Model with inputs `tokens` (int32), `features`, `has_text` and `has_image` (`(B, 1)`, float32, 0 or 1) and
        calibrated probabilities `(B, K)`. At least one modality must be there.
    """
    ops = keras.ops
    # The branches are layers of their own: joined by their tensors, operations of a branch that was loaded from a file
    # would carry names that the operations below get too, which Keras refuses.
    tokens = keras.Input(text_model.input.shape[1:], dtype=text_model.input.dtype, name="tokens")
    features = keras.Input(image_head.input.shape[1:], name="features")
    has_text = keras.Input((1,), name="has_text")
    has_image = keras.Input((1,), name="has_image")
    text = ops.log_softmax(without_optimizer(text_model)(tokens), axis=-1)
    image = ops.log_softmax(without_optimizer(image_head)(features), axis=-1)
    # Weights per class are dense layers with a diagonal: every Keras can load those.
    text_scale, image_scale = (
        keras.layers.Dense(len(vector), use_bias=False, trainable=False, name=name)
        for vector, name in ((weights.text, "text_weights"), (weights.image, "image_weights"))
    )
    scores = text_scale(ops.multiply(has_text, text)) + image_scale(ops.multiply(has_image, image))
    text_scale.set_weights([np.diag(weights.text).astype(np.float32)])
    image_scale.set_weights([np.diag(weights.image).astype(np.float32)])
    both = ops.multiply(has_text, has_image)
    inverse = (
        both / weights.temperatures[BOTH]
        + (has_text - both) / weights.temperatures[TEXT]
        + (has_image - both) / weights.temperatures[IMAGE]
    )
    probabilities = ops.softmax(ops.multiply(scores, inverse), axis=-1)
    return keras.Model(
        {"tokens": tokens, "features": features, "has_text": has_text, "has_image": has_image},
        probabilities,
        name="concatenate",
    )
