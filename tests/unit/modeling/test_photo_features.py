"""Photo features from the exported base of a really trained bundle."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from product_classifier.core import bundle as names
from product_classifier.core.workspace import Workspace
from product_classifier.modeling.photo_features import (
    PhotoFeatureExtractor,
    map_ahead,
    round_features,
)


@pytest.fixture(scope="module")
def extractor(trained_workspace: Workspace) -> PhotoFeatureExtractor:
    return PhotoFeatureExtractor(
        trained_workspace.candidate / names.IMAGE_BASE_NETWORK, "float32", threads=2
    )


def photos(count: int) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


def test_features_come_in_the_photos_order(extractor: PhotoFeatureExtractor) -> None:
    some = photos(30)
    found = extractor.extract(some)
    assert found.shape == (30, extractor.feature_size)
    assert found.dtype == np.float32
    assert len(np.unique(found, axis=0)) == 30
    backwards = extractor.extract(some[::-1])
    np.testing.assert_array_equal(backwards[::-1], found)
    np.testing.assert_array_equal(extractor.extract(some[7:8])[0], found[7])


def test_where_there_is_no_photo_there_are_zeros(extractor: PhotoFeatureExtractor) -> None:
    one, other = photos(2)
    found = extractor.extract([None, one, None, other, None])
    assert not found[[0, 2, 4]].any()
    np.testing.assert_array_equal(found[[1, 3]], extractor.extract([one, other]))
    assert extractor.extract([]).shape == (0, extractor.feature_size)
    assert not extractor.extract([None]).any()


def test_features_hold_what_the_cache_can_hold(extractor: PhotoFeatureExtractor) -> None:
    found = extractor.extract(photos(4))
    np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))


@pytest.mark.filterwarnings("error")
def test_rounding_gives_no_infinity() -> None:
    values = np.array([[0.1, 1e6, -1e6, 65504, np.nan]], dtype=np.float32)
    found = round_features(values)
    assert found.dtype == np.float32
    assert found[0, 1:4].tolist() == [65504, -65504, 65504]
    assert found[0, 0] == np.float32(np.float16(0.1))
    assert np.isnan(found[0, 4])


def test_a_failing_source_of_photos_leaves_the_extractor_usable(
    extractor: PhotoFeatureExtractor,
) -> None:
    def failing() -> Iterator[NDArray[np.uint8]]:
        yield from photos(5)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        extractor.extract(failing())
    assert extractor.extract(photos(5)).any(axis=1).all()


def test_mapping_ahead_keeps_the_order_and_holds_few_results() -> None:
    started, taken, most = 0, 0, 0
    lock = threading.Lock()

    def work(item: int) -> int:
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - taken)
        return item * item

    with ThreadPoolExecutor(4) as pool:
        found = []
        for value in map_ahead(pool, work, range(100), ahead=5):
            found.append(value)
            with lock:
                taken += 1
    assert found == [item * item for item in range(100)]
    assert most <= 6
    with ThreadPoolExecutor(1) as pool:
        assert list(map_ahead(pool, work, [], ahead=5)) == []
        assert list(map_ahead(pool, work, [3], ahead=5)) == [9]
