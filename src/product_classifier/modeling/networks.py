"""The inference networks: OpenVINO, each with its precision set explicitly. No TensorFlow."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Runs a network with one input and one output on all rows at once; for one thread at a time.

    A compiled network keeps one request for such calls: several threads need a `RequestPool`.

    Returns:
        Shape `(N, ·)`, float32.

    Raises:
        TypeError: `rows` are of another type than the input. OpenVINO would convert them unasked.
    """
    _check_rows(network, rows)
    output: NDArray[np.float32] = network(rows)[network.output(0)]
    return output.copy()


def _check_rows(network: openvino.CompiledModel, rows: NDArray[np.generic]) -> None:
    wanted = network.input(0).get_element_type().to_dtype()
    if rows.dtype != wanted:
        raise TypeError(f"The network takes {wanted} rows. Received: {rows.dtype}.")


class RequestPool:
    """Lends a network's inference requests, each to one thread at a time; makes one only where none is idle.

    So there are never more than were needed at once, and no lock is held while a network runs.
    """

    def __init__(self, network: openvino.CompiledModel) -> None:
        self.network = network
        self._idle: deque[openvino.InferRequest] = deque()  # its append and pop are atomic

    def take(self) -> openvino.InferRequest:
        """Gives a request that nobody uses; `give_back` it."""
        try:
            return self._idle.pop()
        except IndexError:
            return self.network.create_infer_request()

    def give_back(self, request: openvino.InferRequest) -> None:
        """Takes a request back that has finished."""
        self._idle.append(request)

    @contextmanager
    def lend(self) -> Iterator[openvino.InferRequest]:
        """Lends a request for the block; one that failed in it is not used again."""
        request = self.take()
        yield request
        self.give_back(request)

    def run(self, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        """Does what `run_network` does, from any thread.

        Raises:
            TypeError: `rows` are of another type than the input.
        """
        _check_rows(self.network, rows)
        with self.lend() as request:
            request.infer({0: rows})
            output: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        return output
