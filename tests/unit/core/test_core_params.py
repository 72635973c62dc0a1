from pathlib import Path
from typing import Any

import pytest
import yaml

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.params import Params, load_params, parse_params

ROOT = Path(__file__).resolve().parents[3]


def test_projects_own_file_is_usable_and_spells_out_the_defaults() -> None:
    path = ROOT / "params.yaml"
    params = load_params(path)
    assert yaml.safe_load(path.read_text()).keys() == Params.model_fields.keys()
    assert params.model_dump() == parse_params(yaml.safe_load(path.read_text())).model_dump()


def test_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("")
    assert load_params(tmp_path / "params.yaml") == Params()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trian": {}}, r"trian: Extra inputs.*Received: {}"),
        ({"train": {"text": {"max_token": 9}}}, r"train\.text\.max_token: Extra inputs"),
        ({"train": {"text": {"dropout": 1.5}}}, r"train\.text\.dropout: .*Received: 1\.5"),
        ({"train": {"image": {"precision": "float16"}}}, r"'bfloat16'.*Received: 'float16'"),
        ({"ingest": {"split": {"train": 0.9}}}, "must be above 0 and add up to 1"),
        ({"ingest": {"split": {"train": 1, "test": 0, "validation": 0}}}, "above 0"),
        ({"gate": {"min_accuracy": "high"}}, r"gate\.min_accuracy"),
        ("text", "not usable"),
    ],
    ids=str,
)
def test_what_can_not_be_used_is_named(content: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_params(content)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_params({"a": 1, "b": 2})
    assert "a: " in str(caught.value)
    assert "b: " in str(caught.value)


def test_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Run from the project's folder"):
        load_params(tmp_path / "params.yaml")


def test_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(ConfigurationError, match="is not YAML"):
        load_params(tmp_path / "params.yaml")


def test_params_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Params().gate.min_accuracy = 0.0  # type: ignore[misc]
