"""The fusion as a Keras model: both branches joined, from token ids and photo features to probabilities."""

import keras
import numpy as np

from product_classifier.modeling.fusion import BOTH, IMAGE, TEXT, FusionWeights


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
    tokens, features = text_model.input, image_head.input
    has_text = keras.Input((1,), name="has_text")
    has_image = keras.Input((1,), name="has_image")
    text = ops.log_softmax(text_model.output, axis=-1)
    image = ops.log_softmax(image_head.output, axis=-1)
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
