"""Product codes and label indices. One order for both branches and the fusion: ascending code."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from product_classifier.core.errors import ArtifactError, DataValidationError


class LabelMap:
    """Maps product codes to label indices 0..n-1 and back. The set comes from the data."""

    def __init__(self, codes: Iterable[int]) -> None:
        self.codes: tuple[int, ...] = tuple(sorted(set(codes)))
        self._index = {code: index for index, code in enumerate(self.codes)}

    def __len__(self) -> int:
        return len(self.codes)

    def encode(self, codes: Sequence[int]) -> NDArray[np.int64]:
        """Gives the label index of each code.

        Raises:
            DataValidationError: a code is not in the set.
        """
        if unknown := sorted(set(codes) - set(self._index)):
            raise DataValidationError(
                f"Unknown product codes {unknown[:5]}. Expected some of {list(self.codes)}."
            )
        return np.array([self._index[code] for code in codes], dtype=np.int64)

    def to_mapper(self) -> dict[str, int]:
        """Gives the mapper file's content: label index (as text) → product code."""
        return {str(index): code for index, code in enumerate(self.codes)}

    @classmethod
    def from_mapper(cls, mapper: Mapping[str, int]) -> "LabelMap":
        """Reads a mapper file's content.

        Raises:
            ArtifactError: the indices are not 0..n-1 in ascending order of code.
        """
        try:
            labels = cls(mapper.values())
            ordered = labels.to_mapper() == dict(mapper)
        except (AttributeError, TypeError):  # no object, or codes of several types
            ordered = False
        if not ordered or not all(type(code) is int for code in labels.codes):
            raise ArtifactError(
                "The mapper must give whole product codes for indices 0..n-1, in ascending order of code."
            )
        return labels
