"""Images of a few milliseconds, and for each test a project of its own: nothing of it is left behind."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from operator_stack import NAMES, PREFIX, TAG, USER, Stack, make_checkout, remove, start_proxy

from docker_program import docker

FAKE = Path(__file__).parent / "fake_stage"


@pytest.fixture(scope="session")
def small_images(engine: str) -> None:
    """Builds the images of the operators' tests, and the proxy's."""
    tags = [option for name in NAMES for option in ("--tag", f"{PREFIX}/{name}:{TAG}")]
    docker("build", "--quiet", *tags, str(FAKE))
    proxy = "containers/socket-proxy/Dockerfile"
    docker("build", "--quiet", "--tag", f"{PREFIX}/socket-proxy:{TAG}", "--file", proxy, ".")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the host outside the checkout that stages may read."""
    folder = tmp_path_factory.mktemp("catalogues")
    (folder / "autumn").mkdir()
    folder.chmod(0o755)
    return folder


@pytest.fixture
def stack(
    small_images: None, tmp_path: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A project of its own: nothing of it is left behind."""
    stack = Stack(f"operators-{uuid.uuid4().hex[:8]}", make_checkout(tmp_path))
    docker("network", "create", stack.project)
    settings = {
        "COMPOSE_PROJECT": stack.project,
        "NETWORK_NAME": stack.project,
        "IMAGE_PREFIX": PREFIX,
        "PROJECT_HOST_PATH": str(stack.checkout),
        "DATA_HOST_PATHS": str(data_folder),
        "STAGE_USER": f"{USER}:{USER}",
    }
    try:
        port = start_proxy(stack, settings)
        stack.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DOCKER_HOST": f"tcp://127.0.0.1:{port}",
            "IMAGE_TAG": TAG,
            **settings,
        }
        yield stack
    finally:
        remove(stack)
