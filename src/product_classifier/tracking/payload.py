"""A record in the shapes that MLflow takes: flat parameters, batches, clean names."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from product_classifier.tracking.record import RunRecord

# MLflow 3 takes 6,000 characters, servers before 2.10 take 500.
MAX_PARAM_CHARACTERS = 500
MAX_TAG_CHARACTERS = 5000
MAX_KEY_CHARACTERS = 250
_REFUSED_IN_NAMES = re.compile(r"[^\w.\- :/]")

Item = TypeVar("Item")


def clean_name(name: str) -> str:
    """Makes a name of a parameter, tag or metric that every server takes."""
    return _REFUSED_IN_NAMES.sub("_", name)[:MAX_KEY_CHARACTERS]


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turns nested parameters into `section.name` → text."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, str) and value:
            flat[clean_name(name)] = value
        else:
            flat[clean_name(name)] = json.dumps(value, ensure_ascii=False, default=str)
    return flat


def shorten(value: str, limit: int) -> str:
    """Cuts a value to `limit` characters and says so in it."""
    if len(value) <= limit:
        return value
    note = f"… [cut from {len(value)} characters]"
    return value[: limit - len(note)] + note


def metric_points(record: RunRecord) -> list[tuple[str, float, int, int]]:
    """Lists a record's metrics as (name, value, Unix milliseconds, step), in their order."""
    return [
        (clean_name(name), value, event.at_ms, event.step)
        for event in record.metrics()
        for name, value in event.values.items()
    ]


def batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Cuts a sequence into lists of `size`, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
