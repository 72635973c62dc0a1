"""The lineage tuple: everything that one has to know to say where a model came from."""

import logging
import os
import subprocess
from typing import Any

from product_classifier import __version__
from product_classifier.core.files import canonical_json, sha256_bytes
from product_classifier.core.workspace import Workspace
from product_classifier.versioning.lockfile import LOCK_FILE, LockFile, StageLock

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_GIT_TIMEOUT_SECONDS = 20


def collect_lineage(workspace: Workspace, lock: LockFile) -> dict[str, Any]:
    """Gathers git commit, all DVC hashes, parameters' hash, image, Airflow run and version.

    Args:
        workspace: The checkout.
        lock: Its `dvc.lock`.

    Returns:
        JSON values; what can't be known (no git, no image, no Airflow) is None.
    """
    commit, dirty = read_git(workspace)
    return {
        "schema": SCHEMA_VERSION,
        "git_commit": commit,
        "git_dirty": dirty,
        "lock_id": lock.lock_id,
        "params_hash": lock.params_hash,
        "stages": {name: _describe_stage(stage) for name, stage in lock.stages.items()},
        "image_digest": os.environ.get("IMAGE_DIGEST") or None,
        "airflow_run_id": os.environ.get("AIRFLOW_RUN_ID") or None,
        "package_version": __version__,
    }


def _describe_stage(stage: StageLock) -> dict[str, Any]:
    return {
        "deps": {entry.path: entry.md5 for entry in stage.deps},
        "outs": {entry.path: entry.md5 for entry in stage.outs},
        "params_hash": sha256_bytes(canonical_json(stage.params)),
    }


def read_git(workspace: Workspace) -> tuple[str | None, bool | None]:
    """Gives the commit and whether anything but `dvc.lock` differs; None where git can't say.

    In an image without git and without `.git`, GIT_COMMIT says what it was built from.
    """
    commit = _git(workspace, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return os.environ.get("GIT_COMMIT") or None, None
    # The pipeline itself writes dvc.lock, and never commits: it says nothing about the code.
    changes = _git(workspace, "status", "--porcelain", "--", ".", f":(exclude){LOCK_FILE}")
    return commit, None if changes is None else bool(changes)


def _git(workspace: Workspace, *arguments: str) -> str | None:
    # A checkout mounted into a container belongs to another user: git would refuse to read it.
    command = ["git", "-c", "safe.directory=*", "-C", str(workspace.root), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        answer = subprocess.run(  # noqa: S603 (fixed program, no shell)
            command,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_SECONDS,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.info("git can't be asked: %s", error)
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
