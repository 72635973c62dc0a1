"""A real engine, and the images: ours and those that stand in for others', built once a run."""

import os
import subprocess
from pathlib import Path

import pytest

from docker_program import ROOT, docker
from product_classifier.runtime.images import (
    IMAGES,
    build_images,
    image_name,
    image_tag,
    read_commit,
)

# Of the first build of the stand-ins, which downloads them, on a busy machine.
STANDIN_SECONDS = 1200
STANDINS = ("postgres", "redis", "haproxy", "s3", "prometheus", "alertmanager", "node-exporter")
_STANDINS_FILE = "tests/containers/standins/docker-bake.hcl"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Counts the build of the images, which takes minutes the first time, to no test's time."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300, func_only=True))


@pytest.fixture(scope="session")
def engine() -> str:
    """The version of the engine that answers; without one these tests fail, they do not skip."""
    return docker("version", "--format", "{{.Server.Version}}")


@pytest.fixture(scope="session")
def commit() -> str:
    """The commit that the images are built from."""
    return read_commit(ROOT)


@pytest.fixture(scope="session")
def images(engine: str, commit: str) -> dict[str, str]:
    """Full names of all images, ours under their own names, the others' as `standin/<name>`."""
    prefix = os.environ.get("IMAGE_PREFIX") or "product-classifier"
    tag = os.environ.get("IMAGE_TAG") or image_tag(ROOT)
    build_images(ROOT, prefix, tag)
    bake = ["docker", "buildx", "bake", "--file", _STANDINS_FILE]
    done = subprocess.run(bake, cwd=ROOT, timeout=STANDIN_SECONDS)
    assert done.returncode == 0, "The build of the stand-ins failed."
    ours = {name: image_name(prefix, name, tag) for name in IMAGES}
    return ours | {
        f"standin/{name}": f"product-classifier-standin/{name}:local" for name in STANDINS
    }
