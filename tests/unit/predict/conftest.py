"""A workspace with a real champion, made once and linked for each test."""

import os
import shutil
from pathlib import Path

import pytest

from product_classifier.core.catalogue import Product, load_products
from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.workspace import TEST_FILE, Workspace


@pytest.fixture(scope="session")
def _champion(trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("champion"))
    # A copy, because publishing makes the candidate's files read-only.
    shutil.copytree(trained_workspace.candidate, made.candidate)
    point_champion(made, publish_release(made, made.candidate).release_id, "made by a test")
    return made


@pytest.fixture
def ready(tmp_path: Path, trained_workspace: Workspace, _champion: Workspace) -> Workspace:
    """A workspace with catalogue and champion; only its files' links are its own."""
    root = tmp_path / "work space"
    root.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(trained_workspace.root / name, root)
    workspace = Workspace(root)
    shutil.copytree(_champion.models, workspace.models, symlinks=True, copy_function=os.link)
    shutil.copytree(trained_workspace.raw, workspace.raw, copy_function=os.link)
    return workspace


@pytest.fixture
def products(ready: Workspace) -> list[Product]:
    """The unlabelled products of the catalogue."""
    return load_products(ready.raw / TEST_FILE)
