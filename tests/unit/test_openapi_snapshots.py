"""What the services promise to their callers, word by word: a change of it must be meant.

    UPDATE_SNAPSHOTS=1 pytest tests/unit/test_openapi_snapshots.py

writes tests/snapshots/*_openapi.json anew; the difference then belongs into the same commit as the change.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace

SNAPSHOTS = Path(__file__).resolve().parents[1] / "snapshots"
OPERATIONS = ("get", "post", "put", "patch", "delete")


def build(service: str, root: Path) -> FastAPI:
    settings = Settings(_env_file=None, admin_password="correct-horse-battery-1")
    if service == "auth":
        from product_classifier.auth.app import create_app as create_auth

        return create_auth(settings)
    from product_classifier.serve.app import create_app as create_serve

    return create_serve(settings, Workspace(root))


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", item[method])
        for path, item in document["paths"].items()
        for method in OPERATIONS
        if method in item
    ]


@pytest.mark.parametrize("service", ["auth", "serve"])
def test_openapi_document_is_the_one_agreed_on(service: str, tmp_path: Path) -> None:
    document = json.dumps(build(service, tmp_path).openapi(), indent=2, ensure_ascii=False) + "\n"
    snapshot = SNAPSHOTS / f"{service}_openapi.json"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        snapshot.write_text(document, encoding="utf-8")

    assert document == snapshot.read_text(encoding="utf-8"), (
        "The API changed. If that is meant: UPDATE_SNAPSHOTS=1 pytest " + __file__
    )


@pytest.mark.parametrize("service", ["auth", "serve"])
def test_every_error_is_documented_as_problem_json(service: str, tmp_path: Path) -> None:
    for label, operation in operations(build(service, tmp_path).openapi()):
        for status, answer in operation["responses"].items():
            if status >= "400":
                assert list(answer["content"]) == ["application/problem+json"], (label, status)


@pytest.mark.parametrize("service", ["auth", "serve"])
def test_every_operation_says_what_it_does_and_has_a_place(service: str, tmp_path: Path) -> None:
    documented = operations(build(service, tmp_path).openapi())

    assert len(documented) > 10
    for label, operation in documented:
        assert operation.get("description"), label
        assert operation.get("tags"), label
