"""The frozen split: shares, no duplicate on two sides, and little movement when products come."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pytest

from product_classifier.core.catalogue import Product
from product_classifier.core.params import SplitParams
from product_classifier.ingest.split import normalise_title, split_products

SIDES = ("train", "validation", "test")


def make(sizes: Mapping[int, int], seed: int = 0) -> tuple[list[Product], dict[int, int]]:
    rng = random.Random(seed)
    codes = [code for code, size in sizes.items() for _ in range(size)]
    products = [
        Product(row, f"title {row}", "", rng.randrange(10**9), row) for row in range(len(codes))
    ]
    return products, dict(enumerate(codes))


def side_of(splits: dict[str, Any]) -> dict[int, str]:
    return {row: side for side in SIDES for row in splits[side]}


def test_every_row_is_on_exactly_one_side() -> None:
    products, codes = make({1: 100, 2: 37, 3: 5})
    splits = split_products(products, codes, {}, SplitParams())
    rows = [row for side in SIDES for row in splits[side]]
    assert sorted(rows) == list(range(142))
    assert all(splits[side] == sorted(splits[side]) for side in SIDES)
    assert splits["seed"] == 1
    assert splits["fractions"] == {"train": 0.7, "validation": 0.15, "test": 0.15}


def test_shares_hold_in_every_type() -> None:
    products, codes = make({1: 1000, 2: 200, 3: 40})
    sides = side_of(split_products(products, codes, {}, SplitParams()))
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for row, side in sides.items():
        counts[codes[row]][side] += 1
    for code, size in ((1, 1000), (2, 200), (3, 40)):
        assert counts[code] == {
            "train": round(0.7 * size),
            "validation": round(0.15 * size),
            "test": round(0.15 * size),
        }


@pytest.mark.parametrize("size", [3, 4, 5, 6, 9])
def test_small_type_is_on_every_side(size: int) -> None:
    products, codes = make({1: 50, 2: size})
    sides = side_of(split_products(products, codes, {}, SplitParams()))
    assert {sides[row] for row in codes if codes[row] == 2} == set(SIDES)


@pytest.mark.parametrize("size", [1, 2])
def test_tiny_type_is_in_training(size: int) -> None:
    products, codes = make({1: 50, 2: size})
    sides = side_of(split_products(products, codes, {}, SplitParams()))
    assert "train" in {sides[row] for row in codes if codes[row] == 2}


def test_products_with_the_same_photo_or_near_same_title_stay_together() -> None:
    rng = random.Random(5)
    products, codes, hashes = [], {}, {}
    for row in range(600):
        twin = rng.randrange(200)
        words = ["Été", f"modèle-{twin}", "Rouge"]
        rng.shuffle(words)
        product = Product(
            row, ", ".join(words).upper() if row % 2 else " ".join(words), "", row * 7, row
        )
        products.append(product)
        hashes[product.photo_name] = f"photo {rng.randrange(400)}"
        codes[row] = 1 + twin % 3
    sides = side_of(split_products(products, codes, hashes, SplitParams()))
    by_title, by_photo = defaultdict(set), defaultdict(set)
    for product in products:
        by_title[normalise_title(product.title)].add(sides[product.row])
        by_photo[hashes[product.photo_name]].add(sides[product.row])
    assert all(len(found) == 1 for found in (*by_title.values(), *by_photo.values()))


def test_empty_titles_do_not_join_products() -> None:
    products = [Product(row, "", "", row, row) for row in range(100)]
    splits = split_products(products, dict.fromkeys(range(100), 1), {}, SplitParams())
    assert [len(splits[side]) for side in SIDES] == [70, 15, 15]


def test_order_of_rows_and_hash_seed_do_not_matter() -> None:
    products, codes = make({1: 100, 2: 30})
    shuffled = products[:]
    random.Random(1).shuffle(shuffled)
    assert split_products(products, codes, {}, SplitParams()) == split_products(
        shuffled, codes, {}, SplitParams()
    )


def test_few_more_products_move_few_others() -> None:
    products, codes = make({1: 1000, 2: 300})
    before = side_of(split_products(products, codes, {}, SplitParams()))
    more = [Product(5000 + i, f"new {i}", "", 10**9 + i, 5000 + i) for i in range(20)]
    after = side_of(
        split_products(products + more, {**codes, **{p.row: 1 for p in more}}, {}, SplitParams())
    )
    assert sum(before[row] != after[row] for row in before) <= 20


def test_another_seed_gives_another_split() -> None:
    products, codes = make({1: 100})
    first, second = (split_products(products, codes, {}, SplitParams(seed=s)) for s in (1, 2))
    assert first["test"] != second["test"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Drone  Caméra HD", "camera hd, DRONE!"),
        ("Straße", "STRASSE"),
        ("été", "e\u0301te\u0301"),
    ],
    ids=["order and case", "sharp s", "composition"],
)
def test_near_same_titles_are_equal(one: str, other: str) -> None:
    assert normalise_title(one) == normalise_title(other)
