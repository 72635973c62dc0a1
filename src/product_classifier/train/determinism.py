"""Same seed, same data, same machine: same model."""

import keras
import tensorflow


def make_deterministic(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow and makes TensorFlow's parallel sums reproducible."""
    keras.utils.set_random_seed(seed)
    tensorflow.config.experimental.enable_op_determinism()


def reseed_layers(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets the dropout generators as they must be at the start of `epoch`.

    A resumed training then draws what an uninterrupted one draws.
    """
    for layer in model._flatten_layers():
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign([seed, epoch])
