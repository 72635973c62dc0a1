"""From Keras to the inference format."""

import warnings
from pathlib import Path

import keras
import numpy as np
import openvino
from numpy.typing import NDArray

from product_classifier.core.files import canonical_json, sha256_bytes


def convert_to_openvino(model: keras.Model) -> openvino.Model:
    """Converts a Keras model, keeping int32 inputs as they are.

    Raises:
        TypeError: a token input became another type on the way (see `networks`).
    """
    with warnings.catch_warnings():
        # The converter traces with a list where Keras wants a tensor: harmless, one per call.
        warnings.filterwarnings("ignore", message="The structure of `inputs`")
        converted = openvino.convert_model(model)
    wanted = [str(tensor.dtype) for tensor in model.inputs]
    found = [tensor.get_element_type().get_type_name() for tensor in converted.inputs]
    if [w.replace("float", "f").replace("int", "i") for w in wanted] != found:
        raise TypeError(f"Inputs changed type in conversion. Expected {wanted}. Received: {found}.")
    return converted


def save_network(network: openvino.Model, path: Path) -> None:
    """Writes `.xml` and `.bin` at full precision (OpenVINO's default would halve it)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(network, path, compress_to_fp16=False)


def hash_weights(arrays: list[NDArray[np.generic]]) -> str:
    """Names weight arrays by their values, types and shapes."""
    parts = [
        [array.dtype.str, list(array.shape), sha256_bytes(np.ascontiguousarray(array).tobytes())]
        for array in arrays
    ]
    return sha256_bytes(canonical_json(parts))
