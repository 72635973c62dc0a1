"""Releases: bundles that passed the gate; and the champion, the one of them that scores and serves.

    models/releases/<id>/  the first 16 digits of a bundle's content id; never changed
    models/champion        relative symlink to a release: the truth
    models/champion.json   release, content id, hash of its manifest: what DVC sees
    models/champion_history.jsonl  one line per move

A move is: write the intent, swap the symlink (from this instant the new champion counts), write
`champion.json`, append to the history, remove the intent. A SIGKILL before the swap leaves the old
champion; after it, `heal_champion` does the steps that are missing. Every function here that reads
or moves the champion calls it first.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from product_classifier.core.bundle import MANIFEST, load_bundle, read_manifest
from product_classifier.core.champion_history import (
    Move,
    MoveKind,
    append_move,
    champion_history,
    previous_champion,
)
from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.core.files import (
    link_or_copy,
    publish_directory,
    read_json,
    sha256_file,
    symlink_atomic,
    write_json_atomic,
)
from product_classifier.core.workspace import Workspace

__all__ = [
    "Move",
    "MoveKind",
    "Release",
    "champion_history",
    "current_champion",
    "find_release",
    "heal_champion",
    "list_releases",
    "point_champion",
    "previous_champion",
    "publish_release",
    "rollback",
]

logger = logging.getLogger(__name__)

RELEASE_ID_DIGITS = 16
_INTENT_FILE = ".champion_intent.json"
_LOCK_FILE = ".champion.lock"


@dataclass(frozen=True)
class Release:
    """One published bundle."""

    release_id: str
    path: Path
    content_id: str
    created_at: str
    manifest_sha256: str
    metrics: dict[str, dict[str, Any]]

    def as_champion(self) -> dict[str, str]:
        """What `champion.json` says about it."""
        return {
            "release": self.release_id,
            "content_id": self.content_id,
            "manifest_sha256": self.manifest_sha256,
        }


@contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    workspace.models.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(workspace.models / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_release(path: Path) -> Release:
    manifest = read_manifest(path)
    return Release(
        release_id=path.name,
        path=path,
        content_id=manifest.content_id,
        created_at=manifest.created_at,
        manifest_sha256=sha256_file(path / MANIFEST),
        metrics=manifest.metrics,
    )


def publish_release(workspace: Workspace, bundle_dir: Path) -> Release:
    """Copies a verified bundle to where nothing changes it any more; once more changes nothing.

    Files are hard links where the file system can, so they become read-only in `bundle_dir` too.

    Raises:
        ArtifactError: the bundle is missing or damaged.
    """
    bundle = load_bundle(bundle_dir)
    target = workspace.releases / bundle.manifest.content_id[:RELEASE_ID_DIGITS]
    with _locked(workspace):
        if not _is_intact(target, bundle.manifest.content_id):
            with publish_directory(target) as staging:
                for name in (*bundle.manifest.files, MANIFEST):
                    # resolve: DVC may have put symlinks to its cache there
                    link_or_copy((bundle.path / name).resolve(), staging / name)
                    (staging / name).chmod(0o444)
                load_bundle(staging)
    return _open_release(target)


def _is_intact(target: Path, content_id: str) -> bool:
    if not target.exists():
        return False
    try:
        return load_bundle(target).manifest.content_id == content_id
    except ArtifactError as error:
        logger.warning("Release %s is published again: %s", target.name, error)
        return False


def list_releases(workspace: Workspace) -> list[Release]:
    """Lists the releases, oldest first; their files are not hashed."""
    releases = []
    for path in workspace.releases.glob("[!.]*"):
        try:
            releases.append(_open_release(path))
        except ArtifactError as error:
            logger.warning("%s", error)
    return sorted(releases, key=lambda release: (release.created_at, release.release_id))


def find_release(workspace: Workspace, release_id: str) -> Path:
    """Gives the folder of a release named by its id or by an unambiguous beginning of it.

    Raises:
        ConfigurationError: no release, or more than one, has a name that begins so.
    """
    names = sorted(path.name for path in workspace.releases.glob("[!.]*"))
    found = [name for name in names if release_id and name.startswith(release_id)]
    if len(found) != 1:
        raise ConfigurationError(
            f"Expected the id of one release: {names or 'there is none'}. Received: {release_id!r}."
        )
    return workspace.releases / found[0]


def point_champion(
    workspace: Workspace, release_id: str, reason: str, *, kind: MoveKind = "gate"
) -> Release:
    """Makes a release the champion, after checking every file of it.

    Raises:
        ArtifactError: the release is missing or damaged; the champion stays.
    """
    with _locked(workspace):
        _heal(workspace)
        release = _open_release(load_bundle(workspace.releases / release_id).path)
        current = _target(workspace)
        if current == release_id:
            return release
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        move = Move(now, current, release_id, kind, reason)
        write_json_atomic(workspace.models / _INTENT_FILE, move.as_json())
        symlink_atomic(f"{workspace.releases.name}/{release_id}", workspace.champion)
        _complete_move(workspace, move)
    logger.info("Champion: %s (before: %s). Reason: %s.", release_id, current or "none", reason)
    return release


def _complete_move(workspace: Workspace, move: Move) -> None:
    release = _open_release(workspace.releases / move.to_release)
    write_json_atomic(workspace.champion_file, release.as_champion())
    append_move(workspace, move)
    (workspace.models / _INTENT_FILE).unlink()


def _target(workspace: Workspace) -> str | None:
    """Names the release that the symlink points at, or gives None where there is none."""
    try:
        name = Path(os.readlink(workspace.champion)).name
    except OSError:
        return None
    return name if (workspace.releases / name / MANIFEST).is_file() else None


def _heal(workspace: Workspace) -> None:
    target = _target(workspace)
    intent_file = workspace.models / _INTENT_FILE
    if intent_file.exists():
        move = Move.from_json(read_json(intent_file))
        if move.to_release == target:
            logger.warning("Completing the move of the champion to %s.", target)
            _complete_move(workspace, move)
        intent_file.unlink(missing_ok=True)
    if target is None:
        _heal_symlink(workspace)
        return
    expected = _open_release(workspace.releases / target).as_champion()
    if _read_champion_file(workspace) != expected:
        write_json_atomic(workspace.champion_file, expected)


def _heal_symlink(workspace: Workspace) -> None:
    # A copy of the folder by a tool that drops symlinks has the file only.
    said = _read_champion_file(workspace) or {}
    path = workspace.releases / str(said.get("release"))
    if (path / MANIFEST).is_file() and _open_release(path).as_champion() == said:
        symlink_atomic(f"{workspace.releases.name}/{path.name}", workspace.champion)


def _read_champion_file(workspace: Workspace) -> dict[str, str] | None:
    try:
        content = read_json(workspace.champion_file)
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def heal_champion(workspace: Workspace) -> None:
    """Finishes a move of the champion that was killed; changes nothing where all is well."""
    if workspace.models.is_dir():
        with _locked(workspace):
            _heal(workspace)


def current_champion(workspace: Workspace) -> Release | None:
    """Gives the champion without hashing its files, or None where there is none yet."""
    heal_champion(workspace)
    target = _target(workspace)
    return _open_release(workspace.releases / target) if target else None


def rollback(workspace: Workspace, to: str | None = None) -> Release:
    """Makes an earlier release the champion again.

    Args:
        workspace: Where.
        to: Id of a release, or its beginning; without it, the champion before the present one.

    Raises:
        ConfigurationError: there is no such release, or no earlier champion.
        ArtifactError: the release is damaged; the present champion stays.
    """
    heal_champion(workspace)
    target = find_release(workspace, to).name if to is not None else previous_champion(workspace)
    if target is None:
        raise ConfigurationError("There is no earlier champion to go back to.")
    return point_champion(workspace, target, "rolled back by hand", kind="rollback")
