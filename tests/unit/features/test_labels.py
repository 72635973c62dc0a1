from typing import Any

import pytest

from product_classifier.core.errors import ArtifactError, DataValidationError
from product_classifier.features.labels import LabelMap


def test_labels_are_in_ascending_order_of_code() -> None:
    labels = LabelMap([2583, 10, 40, 10])
    assert labels.codes == (10, 40, 2583)
    assert len(labels) == 3
    assert labels.encode([40, 10, 2583, 40]).tolist() == [1, 0, 2, 1]
    assert labels.encode([]).shape == (0,)


def test_unknown_codes_are_named() -> None:
    with pytest.raises(DataValidationError, match=r"\[7, 99\].*\[10, 40\]"):
        LabelMap([10, 40]).encode([99, 10, 7])


def test_mapper_survives_a_round_trip() -> None:
    labels = LabelMap([40, 10, 2583])
    mapper = labels.to_mapper()
    assert mapper == {"0": 10, "1": 40, "2": 2583}
    assert LabelMap.from_mapper(mapper).codes == labels.codes


@pytest.mark.parametrize(
    "mapper",
    [
        {"0": 40, "1": 10},
        {"1": 10, "2": 40},
        {"0": 10, "1": 10},
        {"0": 10, "2": 40},
        {"0": "10", "1": "40"},
        {"0": 10.5, "1": 40},
        {"0": 10, "1": "40"},
        {"0": None},
        {"0": [1]},
        [10, 40],
    ],
    ids=str,
)
def test_a_mapper_in_another_order_is_refused(mapper: Any) -> None:
    with pytest.raises(ArtifactError, match="mapper"):
        LabelMap.from_mapper(mapper)
