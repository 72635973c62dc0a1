"""Editing `params.yaml` by key: comments stay, and nothing is written that a stage would refuse."""

import difflib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import write_text_atomic
from product_classifier.core.params import Params, load_params, parse_params

_SUGGESTIONS = 3


def _editor() -> YAML:
    editor = YAML()
    editor.width = 4096  # never fold a long comment or value
    editor.preserve_quotes = True
    editor.indent(mapping=2, sequence=4, offset=2)
    return editor


def _dump(document: CommentedMap) -> str:
    text = io.StringIO()
    _editor().dump(document, text)
    return text.getvalue()


def flatten_params(params: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Lists all parameters by dotted key, those that `params.yaml` leaves out too."""
    flat: dict[str, Any] = {}
    for name in type(params).model_fields:
        value = getattr(params, name)
        if isinstance(value, BaseModel):
            flat.update(flatten_params(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def parse_assignment(text: str) -> tuple[str, Any]:
    """Splits `a.b.c=value`; the value is read as YAML.

    Raises:
        ConfigurationError: there is no "=" or no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(
            f"Expected key=value, as train.text.epochs=12. Received: {text!r}."
        )
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigurationError(
            f"The value of {key.strip()} is not YAML. Received: {value!r}."
        ) from None


def check_key(key: str) -> None:
    """Makes sure that a parameter of that name exists.

    Raises:
        ConfigurationError: it does not; names the nearest ones.
    """
    allowed = flatten_params(Params())
    if key in allowed:
        return
    inside = [name for name in allowed if name.startswith(f"{key}.")]
    last = key.rpartition(".")[2]
    same = [name for name in allowed if name.rpartition(".")[2] == last]
    near = inside or same or difflib.get_close_matches(key, allowed, n=_SUGGESTIONS, cutoff=0.3)
    kind = "is a section" if inside else "is no parameter"
    raise ConfigurationError(f"{key!r} {kind}. Nearest: {', '.join(near) or ', '.join(allowed)}.")


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def _readable_by_all(value: Any) -> Any:
    # YAML 1.1 (PyYAML) takes 1e-05 for text, 1.2 (DVC) for a number; 1.0e-05 is a number in both.
    text = repr(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        return _editor().load(text.replace("e", ".0e"))
    return value


def _merge(target: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value)
        elif key not in target or target[key] != value:
            target[key] = _readable_by_all(value)


def set_params(path: Path, assignments: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Sets parameters in a file, all of them or none.

    Args:
        path: `params.yaml`.
        assignments: Dotted key → value.

    Returns:
        Key → (before, after) of those that changed; if none did, the file is untouched.

    Raises:
        ConfigurationError: a key is unknown, or a value not allowed.
    """
    for key in assignments:
        check_key(key)
    before = flatten_params(load_params(path))
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    _merge(content, _nested(assignments))
    # What was checked is what is written: "12" has become 12.
    after = flatten_params(parse_params(content))
    changes = {k: (before[k], after[k]) for k in assignments if before[k] != after[k]}
    if changes:
        document = _editor().load(path.read_text(encoding="utf-8")) or CommentedMap()
        _merge(document, _nested({key: value for key, (_, value) in changes.items()}))
        text = _dump(document)
        parse_params(yaml.safe_load(text))
        write_text_atomic(path, text)
    return changes


def replace_sections(text: str, sections: Mapping[str, Any]) -> str:
    """Gives the text with some top-level sections replaced; comments of remaining keys stay."""
    document = _editor().load(text) or CommentedMap()
    for name, values in sections.items():
        if not isinstance(document.get(name), dict):
            document[name] = CommentedMap()
        _drop_unknown(document[name], values)
        _merge(document[name], values)
    return _dump(document)


def _drop_unknown(target: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key in [key for key in target if key not in values]:
        del target[key]
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _drop_unknown(target[key], value)
