"""Divides the labelled products into train, validation and test, frozen to a file.

Products that share a photo or a near-same title are one group and stay on one side: a test on a
product that training saw measures memory. The place of a group follows from its own hash, not from
its neighbours, so that a few more products move few others.
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from product_classifier.core.catalogue import Product
from product_classifier.core.params import SplitParams

SCHEMA = 1
# Groups of this share of their type or more go first, to train: in the smaller sides they would
# bend the shares.
_LARGE_GROUP_FRACTION = 0.05
_LARGE_GROUP_PRODUCTS = 3


def normalise_title(title: str) -> str:
    """Reduces a title to its words: lower case, no accents, no punctuation, sorted."""
    plain = unicodedata.normalize("NFKD", title.casefold())
    letters = "".join(c if c.isalnum() else " " for c in plain if not unicodedata.combining(c))
    return " ".join(sorted(letters.split()))


class _Groups:
    """Union-find over row numbers."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def find(self, item: int) -> int:
        while self._parents[item] != item:
            self._parents[item] = self._parents[self._parents[item]]
            item = self._parents[item]
        return item

    def join_equal(self, keys: Iterable[Hashable | None]) -> None:
        """Joins all positions with an equal key; None joins nothing."""
        first: dict[Hashable, int] = {}
        for position, key in enumerate(keys):
            if key is not None:
                self._parents[self.find(position)] = self.find(first.setdefault(key, position))

    def members(self) -> list[list[int]]:
        groups: dict[int, list[int]] = defaultdict(list)
        for position in range(len(self._parents)):
            groups[self.find(position)].append(position)
        return list(groups.values())


def group_products(products: Sequence[Product], photo_hashes: Mapping[str, str]) -> list[list[int]]:
    """Groups the positions of products that are one product offered several times.

    Args:
        products: Labelled products.
        photo_hashes: Photo file name to the hash of its content; a product without photo has none.
    """
    groups = _Groups(len(products))
    groups.join_equal(photo_hashes.get(product.photo_name) for product in products)
    groups.join_equal(normalise_title(product.title) or None for product in products)
    return groups.members()


def _cuts(sizes: Sequence[int], params: SplitParams) -> tuple[int, int]:
    """Gives where to cut ordered groups so that the sides come nearest to their shares."""
    groups, total = len(sizes), sum(sizes)
    if groups < 3:
        return 1, 1  # one group trains; of two, the other one tests
    sums = [0]
    for size in sizes:
        sums.append(sums[-1] + size)
    first = min(range(1, groups - 1), key=lambda cut: abs(sums[cut] - params.train * total))
    target = (params.train + params.validation) * total
    return first, min(range(first + 1, groups), key=lambda cut: abs(sums[cut] - target))


def split_products(
    products: Sequence[Product],
    codes: Mapping[int, int],
    photo_hashes: Mapping[str, str],
    params: SplitParams,
) -> dict[str, Any]:
    """Divides the labelled products, type by type.

    Args:
        products: Labelled products.
        codes: Row index to product code.
        photo_hashes: Photo file name to the hash of its content.
        params: Shares and seed.

    Returns:
        Content of `splits.json`: sorted row indices of `train`, `validation`, `test`, and how.
        A type with three groups or more is on every side.
    """
    by_class: dict[int, list[list[int]]] = defaultdict(list)
    for group in group_products(products, photo_hashes):
        counts = Counter(codes[products[position].row] for position in group)
        # The most frequent type; of equally frequent ones the lower code.
        by_class[min(counts, key=lambda code: (-counts[code], code))].append(group)
    sides: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for _, groups in sorted(by_class.items()):
        ordered = _order(groups, products, params.seed)
        first, second = _cuts([len(group) for group in ordered], params)
        for side, part in zip(
            sides, (ordered[:first], ordered[first:second], ordered[second:]), strict=True
        ):
            sides[side] += [products[position].row for group in part for position in group]
    fractions = {"train": params.train, "validation": params.validation, "test": params.test}
    rows = {side: sorted(indices) for side, indices in sides.items()}
    return {"schema": SCHEMA, "seed": params.seed, "fractions": fractions, **rows}


def _order(groups: list[list[int]], products: Sequence[Product], seed: int) -> list[list[int]]:
    """Orders a type's groups: large ones first, then by a hash of seed and lowest product id."""
    large = max(_LARGE_GROUP_PRODUCTS, _LARGE_GROUP_FRACTION * sum(map(len, groups)))

    def place(group: list[int]) -> tuple[bool, bytes]:
        key = min(products[position].product_id for position in group)
        return len(group) <= large, hashlib.sha256(f"{seed}:{key}".encode()).digest()

    return sorted(groups, key=place)
