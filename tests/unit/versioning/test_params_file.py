import re
import shutil
from pathlib import Path

import pytest
import yaml

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.params import Params, load_params
from product_classifier.versioning.params_file import (
    flatten_params,
    parse_assignment,
    replace_sections,
    set_params,
)
from unit.versioning.project import CHECKOUT


@pytest.fixture
def params(tmp_path: Path) -> Path:
    shutil.copy(CHECKOUT / "params.yaml", tmp_path)
    return tmp_path / "params.yaml"


def test_the_file_names_every_parameter() -> None:
    content = yaml.safe_load((CHECKOUT / "params.yaml").read_text())

    def keys(tree: object, prefix: str = "") -> set[str]:
        if not isinstance(tree, dict):
            return {prefix.rstrip(".")}
        return {key for name, value in tree.items() for key in keys(value, f"{prefix}{name}.")}

    assert keys(content) == set(flatten_params(Params()))


def test_setting_changes_one_value_and_keeps_the_rest_to_the_byte(params: Path) -> None:
    before = params.read_text()
    changes = set_params(params, {"train.text.epochs": 7})
    assert changes == {
        "train.text.epochs": (load_params(CHECKOUT / "params.yaml").train.text.epochs, 7)
    }
    changed = [
        (old, new)
        for old, new in zip(before.splitlines(), params.read_text().splitlines(), strict=True)
        if old != new
    ]
    assert len(changed) == 1
    old, new = changed[0]
    assert new == re.sub(r"epochs: \d+", "epochs: 7", old)


def test_several_are_set_at_once(params: Path) -> None:
    set_params(params, {"train.seed": 5, "ingest.split.seed": 6, "train.image.weights": "random"})
    loaded = load_params(params)
    assert (loaded.train.seed, loaded.ingest.split.seed) == (5, 6)
    assert loaded.train.image.weights == "random"


@pytest.mark.parametrize("text", ["1e-5", "0.00001", "1.0e-05"])
def test_small_numbers_stay_numbers_for_every_reader(params: Path, text: str) -> None:
    set_params(params, dict([parse_assignment(f"train.text.learning_rate={text}")]))
    assert yaml.safe_load(params.read_text())["train"]["text"]["learning_rate"] == 1e-5
    assert load_params(params).train.text.learning_rate == 1e-5


def test_no_change_leaves_the_file_untouched(params: Path) -> None:
    seed = load_params(params).train.seed
    status = params.stat()
    assert set_params(params, {"train.seed": str(seed)}) == {}
    assert (params.stat().st_ino, params.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_a_value_that_breaks_a_rule_changes_nothing(params: Path) -> None:
    before = params.read_bytes()
    with pytest.raises(ConfigurationError, match="train.image.size"):
        set_params(params, {"train.seed": 1, "train.image.size": 7})
    assert params.read_bytes() == before


def test_shares_that_do_not_add_up_are_refused(params: Path) -> None:
    with pytest.raises(ConfigurationError, match="add up to 1"):
        set_params(params, {"ingest.split.train": 0.9})


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train.text.epoch", "train.text.epochs"),
        ("epochs", "train.text.epochs"),
        ("train.text", "train.text.epochs"),
        ("trian.seed", "train.seed"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(params: Path, key: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=near) as error:
        set_params(params, {key: 1})
    assert repr(key) in str(error.value)


@pytest.mark.parametrize("text", ["train.seed", "=5", "train.seed=[1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_assignment(text)


def test_a_key_that_the_file_leaves_out_can_be_set(params: Path) -> None:
    params.write_text("train:\n  seed: 3 # mine\n")
    set_params(params, {"gate.min_accuracy": 0.7})
    assert load_params(params).gate.min_accuracy == 0.7
    assert "seed: 3 # mine" in params.read_text()


def test_replacing_a_section_drops_what_it_does_not_have() -> None:
    text = "# head\na:\n  x: 1 # one\n  y: 2\nb:\n  z: 3 # three\n"
    assert (
        replace_sections(text, {"a": {"x": 5}}) == "# head\na:\n  x: 5 # one\nb:\n  z: 3 # three\n"
    )
