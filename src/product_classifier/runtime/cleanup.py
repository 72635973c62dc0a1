"""`product-classifier clean`: removes caches and the run's state; never data or models."""

import shutil
from pathlib import Path

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.runtime.choice import stack_runs
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.supervision import Supervisor

_CACHES = (
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".import_linter_cache",
    "htmlcov",
    ".coverage",
    "build",
    "dist",
)
_CODE = ("src", "tests", "airflow/dags", "benchmarks")


def removable(layout: Layout) -> list[Path]:
    """Lists what `clean` would remove."""
    found = [layout.root / name for name in _CACHES]
    for folder in _CODE:
        found += sorted((layout.root / folder).rglob("__pycache__"))
    return [path for path in (*found, layout.state) if path.exists()]


def clean(layout: Layout, settings: Settings) -> list[Path]:
    """Removes caches and state; gives what went.

    Raises:
        ConfigurationError: the services still run, as processes or in containers.
    """
    supervisor = Supervisor(layout)
    if supervisor.answers() or supervisor.marked_processes() or stack_runs(layout, settings):
        raise ConfigurationError("The services still run. Run `make stop` first.")
    gone = removable(layout)
    for path in gone:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(layout.socket.parent, ignore_errors=True)
    return gone
