import shutil

import pytest

from product_classifier.core.settings import Settings
from product_classifier.runtime.layout import Layout


@pytest.fixture
def layout(tmp_path):
    """A checkout at a path with what a supervisor's configuration has to quote: spaces and %."""
    root = tmp_path / "a 100% odd path"
    (root / "airflow" / "dags").mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    layout = Layout(root)
    layout.prepare()
    yield layout
    shutil.rmtree(layout.socket.parent, ignore_errors=True)


@pytest.fixture
def settings():
    return Settings(_env_file=None, airflow_admin_password="a password")
