"""A small generated catalogue, a workspace to import it into, and a server to fetch it from."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, running_server

from product_classifier.core.params import IngestParams, SampleParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.ingest.ingest import ingest
from product_classifier.ingest.sample import write_sample

SMALL_SAMPLE = SampleParams(products=270, unlabelled=27, seed=3)


@pytest.fixture
def params() -> IngestParams:
    """Parameters of a small import."""
    return IngestParams(sample=SMALL_SAMPLE, photo_shards=4)


@pytest.fixture(scope="session")
def _generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_sample(folder, SMALL_SAMPLE)
    return folder


@pytest.fixture
def catalogue(_generated: Path, tmp_path: Path) -> Path:
    """A copy of a small catalogue in the Rakuten layout that a test may change."""
    return Path(shutil.copytree(_generated, tmp_path / "catalogue"))


@pytest.fixture(scope="session")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace(tmp_path_factory.mktemp("published"))
    settings = Settings(_env_file=None, data_source="sample")  # whatever the developer's are
    ingest(workspace, settings, IngestParams(sample=SMALL_SAMPLE, photo_shards=4))
    return workspace.raw


@pytest.fixture
def published(project: Workspace, _published: Path) -> Path:
    """Yesterday's import of the small sample, in `data/raw`."""
    return Path(shutil.copytree(_published, project.raw))


@pytest.fixture
def project(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace as the current folder, with parameters all at their defaults."""
    workspace.params.write_text("{}\n")
    monkeypatch.chdir(workspace.root)
    return workspace


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A local HTTP server, reached without the machine's proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_server() as files:
        yield files
