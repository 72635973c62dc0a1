"""Photo features from the exported VGG16 base: one way for training, batch scoring and serving."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import openvino
from numpy.typing import NDArray

from product_classifier.core.bundle import Precision
from product_classifier.features.images import to_vgg16_input
from product_classifier.modeling.networks import RequestPool, compile_network, usable_precision

Item = TypeVar("Item")
Result = TypeVar("Result")


_LARGEST = float(np.finfo(np.float16).max)


def round_features(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rounds features to float16 values: what the training cache holds, so that all stages see the same.

    Values beyond float16 become its largest: infinity would spoil every figure that is computed from it.
    """
    bounded: NDArray[np.floating] = np.clip(features, -_LARGEST, _LARGEST)
    return bounded.astype(np.float16).astype(np.float32)


class PhotoFeatureExtractor:
    """Computes features with a pool of inference requests, one photo per request. Safe for many threads at once.

    Batching does not help the fast engines on a CPU; a pool as large as the engine's streams does. No callbacks, so no
    `AsyncInferQueue`: with those, OpenVINO 2026.4 hung in 2 of 6 trainings, when the network was freed while a worker
    thread still waited for Python's lock.
    """

    def __init__(
        self,
        network: Path | openvino.Model,
        precision: Precision,
        hint: Literal["THROUGHPUT", "LATENCY"] = "THROUGHPUT",
        threads: int | None = None,
    ) -> None:
        self.precision = usable_precision(precision)
        compiled = compile_network(network, self.precision, hint, threads)
        self._pool = RequestPool(compiled)
        self.feature_size = int(compiled.output(0).partial_shape[1].get_length())
        self.requests = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def extract(self, photos: Iterable[NDArray[np.uint8] | None]) -> NDArray[np.float32]:
        """Computes the features of preprocessed photos in order.

        Args:
            photos: Results of `features.images.preprocess_photo`, or None where there is no photo.

        Returns:
            Shape `(N, feature_size)`, float32 holding float16 values; zeros where there is no photo.
        """
        busy: deque[tuple[openvino.InferRequest, int]] = deque()
        found: dict[int, NDArray[np.float32]] = {}

        def finish_oldest() -> None:
            request, index = busy.popleft()
            request.wait()
            found[index] = request.get_output_tensor(0).data[0].copy()
            self._pool.give_back(request)

        count = 0
        try:
            for index, pixels in enumerate(photos):
                count = index + 1
                if pixels is None:
                    continue
                rows = to_vgg16_input(pixels)[None]  # (1, H, W, 3)
                # One more than run at a time, so that the next photo is there when one is done.
                if len(busy) > self.requests:
                    finish_oldest()
                request = self._pool.take()
                busy.append((request, index))
                request.start_async({0: rows})
        finally:  # where the source of photos fails, what runs goes back too
            while busy:
                finish_oldest()
        features = np.zeros((count, self.feature_size), dtype=np.float32)
        for index, row in found.items():
            features[index] = row
        return round_features(features)


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Maps in order like `Executor.map`, but never holds more than `ahead` results: photos are large."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
