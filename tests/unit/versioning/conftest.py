import os
from collections.abc import Callable
from pathlib import Path

import pytest

from product_classifier.versioning.params_file import set_params
from unit.versioning.project import Project


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "DVC_", "DAGSHUB_", "MLFLOW_", "AIRFLOW_", "IMAGE_", "GIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def project(tmp_path: Path, make_bundle: Callable[..., Path]) -> Project:
    return Project(tmp_path / "a project", make_bundle)


@pytest.fixture(scope="session")
def templates() -> dict[str, Project]:
    return {}


@pytest.fixture
def recorded(
    templates: dict[str, Project],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    make_bundle: Callable[..., Path],
) -> Project:
    """A project in which every stage has run and is recorded."""
    if "once" not in templates:
        template = Project(tmp_path_factory.mktemp("once") / "project", make_bundle)
        template.run_all()
        templates["once"] = template
    return templates["once"].duplicate(tmp_path / "a recorded project")


@pytest.fixture
def recorded_twice(
    templates: dict[str, Project], tmp_path_factory: pytest.TempPathFactory, recorded: Project
) -> Project:
    """The same after a second run with another parameter."""
    if "twice" not in templates:
        template = recorded.duplicate(tmp_path_factory.mktemp("twice") / "project")
        set_params(template.workspace.params, {"train.text.epochs": 7})
        template.run_all()
        templates["twice"] = template
    return templates["twice"].duplicate(recorded.root.parent / "a project recorded twice")
