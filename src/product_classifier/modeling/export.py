"""From Keras to the inference format."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import openvino
from numpy.typing import NDArray
from openvino.frontend.tensorflow import utils as converter

from product_classifier.core.files import canonical_json, sha256_bytes


@contextmanager
def _conversion_on_python_3_13() -> Iterator[None]:
    """Answers a question of OpenVINO's converter (2026.4) that it can't answer itself on Python 3.13.

    It asks for TensorFlow's version by `exec("import tensorflow")` and `exec("del tensorflow")` in a
    function, where names no longer outlive one `exec` (PEP 667): a NameError.
    """
    ask = converter.get_environment_setup

    def answer(framework: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = ask(framework)
        except NameError:
            return {"tensorflow": version("tensorflow")}
        return found

    converter.get_environment_setup = answer
    try:
        yield
    finally:
        converter.get_environment_setup = ask


def convert_to_openvino(model: keras.Model) -> openvino.Model:
    """Converts a Keras model, keeping int32 inputs as they are.

    Raises:
        TypeError: a token input became another type on the way (see `networks`).
    """
    with warnings.catch_warnings(), _conversion_on_python_3_13():
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
