import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from product_classifier.core.workspace import Workspace

CopyWorkspace = Callable[[], Workspace]


@pytest.fixture
def copy_workspace(trained_workspace: Workspace, tmp_path: Path) -> CopyWorkspace:
    """Copies the trained workspace by hard links: a test may replace files, not write into them."""

    def copy() -> Workspace:
        root = tmp_path / "copied work space"
        shutil.copytree(
            trained_workspace.root, root, copy_function=os.link, ignore=shutil.ignore_patterns(".*")
        )
        params = (root / "params.yaml").read_text()
        (root / "params.yaml").unlink()
        (root / "params.yaml").write_text(params)
        return Workspace(root)

    return copy


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers there: records of runs stay local."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
