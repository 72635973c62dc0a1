"""The project's container images: how they are named, which of them are there, and the build of all at once."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError

IMAGES = ("ingest", "train", "predict", "auth", "serve", "airflow", "mlflow", "socket-proxy")
BAKE_FILE = "docker-bake.hcl"

# What an image is made from: a change of anything else (parameters, docs, tests) asks for no new one.
SOURCES = (
    ".dockerignore",
    BAKE_FILE,
    "Dockerfile",
    "LICENSE",
    "pyproject.toml",
    "uv.lock",
    "airflow",
    "containers",
    "src",
)
_NOT_SOURCE = ("__pycache__", ".venv")


def image_name(prefix: str, name: str, tag: str) -> str:
    """Gives an image's full name.

    Raises:
        ConfigurationError: the project has no image of this name.
    """
    if name not in IMAGES:
        raise ConfigurationError(f"Expected one of {', '.join(IMAGES)}. Received: {name!r}.")
    return f"{prefix}/{name}:{tag}"


def image_tag(root: Path, *, gpu: bool = False) -> str:
    """Names the state of the images' sources: the commit, and a hash of the sources where they differ from it.

    The same sources give the same tag, so what is built once is not built again, and two states never
    share one. Without git, the hash alone is the name.

    Args:
        root: The checkout.
        gpu: Whether `train` carries the CUDA libraries: other images, so another tag.
    """
    ending = "-gpu" if gpu else ""
    commit = read_commit(root)
    if not commit:
        return f"source-{hash_sources(root)[:12]}{ending}"
    if _git(root, "status", "--porcelain", "--", *SOURCES):
        ending = f"-dirty-{hash_sources(root)[:8]}{ending}"
    return commit[:12] + ending


def read_commit(root: Path) -> str:
    """Gives the commit that is checked out; empty where there is none."""
    return (_git(root, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip()


def hash_sources(root: Path) -> str:
    """Hashes what the images are made from: names, contents, and whether a file is a program."""
    digest = hashlib.sha256()
    for path in sorted(set(_source_files(root))):
        if path.is_file():  # a deleted file is still in git's list
            executable = os.access(path, os.X_OK)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root)}\0{executable}\0{content}\n".encode())
    return digest.hexdigest()


def _source_files(root: Path) -> Iterator[Path]:
    listed = _git(root, "ls-files", "-z", "-c", "-o", "--exclude-standard", "--", *SOURCES)
    if listed is not None:
        yield from (root / name for name in listed.split("\0") if name)
        return
    for source in SOURCES:
        for path in (root / source, *(root / source).rglob("*")):
            parts = path.relative_to(root).parts
            if not any(part in _NOT_SOURCE or part.endswith(".egg-info") for part in parts):
                yield path


def missing_images(prefix: str, tag: str, names: Sequence[str] = IMAGES) -> list[str]:
    """Lists the images that the engine does not have under this tag.

    Raises:
        RuntimeServiceError: no engine answers.
    """
    listed = _run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])
    if listed.returncode:
        raise RuntimeServiceError(f"The container engine does not answer: {listed.stderr.strip()}")
    present = set(listed.stdout.splitlines())
    return [name for name in names if image_name(prefix, name, tag) not in present]


def build_images(
    root: Path, prefix: str, tag: str, names: Sequence[str] = IMAGES, *, gpu: bool = False
) -> None:
    """Builds images in parallel; the builder's own progress goes to the terminal.

    PYTHON_IMAGE and PIP_INDEX_URL reach the build from the environment.

    Args:
        root: The checkout.
        prefix: What stands before the images' names.
        tag: What they are tagged with, see `image_tag`.
        names: Which ones.
        gpu: Whether `train` carries the CUDA libraries, 3 GB more.

    Raises:
        ConfigurationError: the project has no image of such a name, or Docker or its plugin buildx is missing.
        RuntimeServiceError: the build failed; the reason is above it.
    """
    for name in names:
        image_name(prefix, name, tag)
    if shutil.which("docker") is None:
        raise ConfigurationError("There is no docker here. Install Docker Engine with buildx.")
    if _run(["docker", "buildx", "version"]).returncode:
        raise ConfigurationError(
            "Docker has no plugin buildx. Install it (package docker-buildx-plugin or docker-buildx)."
        )
    variables = {
        "IMAGE_PREFIX": prefix,
        "IMAGE_TAG": tag,
        "GIT_COMMIT": read_commit(root),
        "TRAIN_GPU": "1" if gpu else "",
        # They hold the time of the build: the same image would have another id, and be deployed anew.
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    }
    # The file is named: bake would else read docker-compose.yml too, which wants settings.
    command = ["docker", "buildx", "bake", "--file", BAKE_FILE, *names]
    done = subprocess.run(command, cwd=root, env={**os.environ, **variables}, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeServiceError(
            f"The build of the images failed with exit code {done.returncode}; the reason is above."
        )


def _git(root: Path, *arguments: str) -> str | None:
    if shutil.which("git") is None:
        return None
    # In a clone whose owner is somebody else, git would refuse to answer at all.
    done = _run(["git", "-c", "safe.directory=*", "-C", str(root), *arguments])
    return done.stdout if done.returncode == 0 else None


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
