from typing import Any

import pytest

from product_classifier.tracking.payload import batches, clean_name, flatten, shorten
from product_classifier.tracking.scrub import scrub, scrub_text


def test_nested_parameters_become_dotted_names() -> None:
    params = {"train": {"seed": 1, "text": {"dropout": 0.4}}, "empty": {}, "list": [1, 2]}
    assert flatten(params) == {
        "train.seed": "1",
        "train.text.dropout": "0.4",
        "empty": "{}",
        "list": "[1, 2]",
    }


def test_empty_text_and_nothing_are_told_apart() -> None:
    assert flatten({"a": "", "b": None}) == {"a": '""', "b": "null"}


def test_names_hold_no_refused_character() -> None:
    assert clean_name("classe/Jeux & jouets (été)") == "classe/Jeux _ jouets _été_"


@pytest.mark.parametrize("length", [0, 499, 500])
def test_short_value_stays(length: int) -> None:
    assert shorten("x" * length, 500) == "x" * length


def test_long_value_is_cut_to_the_limit_and_says_so() -> None:
    cut = shorten("x" * 501, 500)
    assert len(cut) == 500
    assert cut.endswith("… [cut from 501 characters]")


def test_batches_hold_everything_once() -> None:
    assert list(batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://u:p@host/x", "https://***@host/x"),
        ("https://token@host", "https://***@host"),
        ("postgresql+psycopg://u:p%40@db:5432/x", "postgresql+psycopg://***@db:5432/x"),
        ("https://host/path@2", "https://host/path@2"),
        ("me@example.com", "me@example.com"),
        ("a key-1 b", "a *** b"),
        ({"key-1": ["key-1", 3, None]}, {"***": ["***", 3, None]}),
    ],
)
def test_credentials_are_hidden_and_nothing_else(value: Any, expected: Any) -> None:
    assert scrub(value, ["key-1"]) == expected


def test_empty_secret_hides_nothing() -> None:
    assert scrub_text("abc", [""]) == "abc"
