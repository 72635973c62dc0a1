import json
from pathlib import Path

import pytest

from product_classifier.core.product_types import names_for, rakuten_names


def test_all_27_codes_have_both_names() -> None:
    names = rakuten_names()
    assert len(names) == 27
    assert all(name.fr and name.en for name in names.values())
    assert (names["10"].fr, names["10"].en) == ("Livres d'occasion", "Second-hand books")
    assert len({name.fr for name in names.values()}) == 27


def test_code_that_nobody_names_is_called_by_its_number() -> None:
    assert names_for([10, 999])["999"].model_dump() == {"fr": "999", "en": "999"}
    assert names_for([10])["10"].en == "Second-hand books"


@pytest.mark.parametrize("value", ["Outils", {"fr": "Outils", "en": "Tools"}])
def test_catalogues_own_names_are_never_mixed_with_rakutens(tmp_path: Path, value: object) -> None:
    (tmp_path / "product_types.json").write_text(json.dumps({"40": value}))
    names = names_for([10, 40], tmp_path)
    assert names["40"].fr == "Outils"
    assert names["10"].fr == "10"


def test_catalogue_without_names_has_rakutens(tmp_path: Path) -> None:
    assert names_for([10], tmp_path)["10"].fr == "Livres d'occasion"
