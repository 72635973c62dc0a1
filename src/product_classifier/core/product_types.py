"""Names of product types in French and English."""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict

NAMES_FILE = "product_types.json"


class ProductTypeName(BaseModel):
    """A product type's name in both languages of the interface."""

    model_config = ConfigDict(frozen=True)

    fr: str
    en: str


@lru_cache(maxsize=1)
def rakuten_names() -> Mapping[str, ProductTypeName]:
    """Names of the 27 Rakuten France codes, keyed by code as text."""
    content = json.loads(
        resources.files(__package__).joinpath(NAMES_FILE).read_text(encoding="utf-8")
    )
    return {code: ProductTypeName.model_validate(name) for code, name in content.items()}


def names_for(codes: list[int], catalogue: Path | None = None) -> dict[str, ProductTypeName]:
    """Names the codes of a label set.

    Args:
        codes: Product type codes as found in the data.
        catalogue: Folder of an ingested catalogue; a `product_types.json` in it wins over the Rakuten names.
            Its values are `{"fr", "en"}` or one text, used for both languages.

    Returns:
        A name for each code, keyed by code as text; a code that nobody names is called by its number.
    """
    known: Mapping[str, ProductTypeName] = rakuten_names()
    if catalogue is not None and (catalogue / NAMES_FILE).is_file():
        # Another shop's codes can be the same numbers with other meanings: never mix two catalogues' names.
        known = read_names(catalogue / NAMES_FILE)
    return {
        str(code): known.get(str(code)) or ProductTypeName(fr=str(code), en=str(code))
        for code in codes
    }


def read_names(path: Path) -> dict[str, ProductTypeName]:
    """Reads a names file.

    Raises:
        ValueError: the file is not JSON, or a value is neither a text nor `{"fr", "en"}`.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("Expected an object of code to name.")
    return {
        str(code): ProductTypeName(fr=name, en=name)
        if isinstance(name, str)
        else ProductTypeName.model_validate(name)
        for code, name in content.items()
    }
