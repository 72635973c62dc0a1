"""A scored batch of products that the model has never seen, made once; a test that changes it gets a copy."""

import os
import shutil
from pathlib import Path

import pytest
from drift_batches import make_fresh_products, score, settings_for

from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace


@pytest.fixture(scope="session")
def _scored(trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("scored") / "work space")
    shutil.copytree(trained_workspace.root, workspace.root, symlinks=True)
    release = publish_release(workspace, workspace.candidate)
    point_champion(workspace, release.release_id, "made by a test")
    make_fresh_products(workspace.root)
    score(workspace, settings_for(workspace))
    return workspace


@pytest.fixture
def scored(_scored: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with catalogue, champion and predictions; its files are links, replaced where they are written."""
    root = tmp_path / "work space"
    shutil.copytree(_scored.root, root, symlinks=True, copy_function=os.link)
    return Workspace(root)


@pytest.fixture
def settings(scored: Workspace) -> Settings:
    return settings_for(scored)
