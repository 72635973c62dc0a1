"""The inference networks: OpenVINO, each with its precision set explicitly. No TensorFlow."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import openvino
from numpy.typing import NDArray

from product_classifier.core.bundle import Precision
from product_classifier.core.errors import ArtifactError

logger = logging.getLogger(__name__)

# Left to itself OpenVINO takes bfloat16 where the processor has it, which destroys the text branch:
# the hint is set on every compilation. int8 networks carry their own types; float32 is for the rest of them.
_HINT: dict[str, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def has_native_bfloat16() -> bool:
    """Says whether the processor multiplies bfloat16 itself; emulated it is 5 times slower than float32."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def usable_precision(wanted: Precision) -> Precision:
    """Gives the precision to run a network of precision `wanted` in on this machine."""
    if wanted == "bfloat16" and not has_native_bfloat16():
        logger.warning(
            "This processor has no native bfloat16: photos are scored in float32, about 7 times slower. "
            "Answers can differ slightly from training's."
        )
        return "float32"
    return wanted


def compile_network(
    network: Path | openvino.Model,
    precision: Precision,
    hint: Literal["THROUGHPUT", "LATENCY"] = "LATENCY",
    threads: int | None = None,
) -> openvino.CompiledModel:
    """Compiles a network for the CPU.

    Args:
        network: An `.xml` with its `.bin` beside it, or a model in memory.
        precision: What the CPU calculates in.
        hint: THROUGHPUT runs several photos side by side, LATENCY one as fast as it can.
        threads: CPU threads; all by default.

    Raises:
        ArtifactError: the network can't be read.
    """
    core = openvino.Core()
    try:
        model = core.read_model(network) if isinstance(network, Path) else network
    except RuntimeError as error:
        raise ArtifactError(f"{network} is no readable network: {error}") from error
    config: dict[str, object] = {
        "INFERENCE_PRECISION_HINT": _HINT[precision],
        "PERFORMANCE_HINT": hint,
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(model, "CPU", config)


def run_network(network: openvino.CompiledModel, rows: NDArray[np.generic]) -> NDArray[np.float32]:
    """Runs a network with one input and one output on all rows at once.

    Returns:
        Shape `(N, ·)`, float32.

    Raises:
        TypeError: `rows` are of another type than the input. OpenVINO would convert them unasked.
    """
    wanted = network.input(0).get_element_type().to_dtype()
    if rows.dtype != wanted:
        raise TypeError(f"The network takes {wanted} rows. Received: {rows.dtype}.")
    output: NDArray[np.float32] = network(rows)[network.output(0)]
    return output.copy()
