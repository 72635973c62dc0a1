"""The champion of a restored state: where its bytes are, and its way back to `models/releases`."""

import json
import logging
import shutil
from dataclasses import dataclass

from product_classifier.core.bundle import MANIFEST, load_bundle
from product_classifier.core.errors import ArtifactError, VersioningError
from product_classifier.core.files import sha256_bytes, sha256_file
from product_classifier.core.releases import RELEASE_ID_DIGITS, point_champion, publish_release
from product_classifier.core.workspace import Workspace
from product_classifier.versioning.index import StateEntry, StateIndex
from product_classifier.versioning.lockfile import Entry, LockFile, parse_lock
from product_classifier.versioning.materialise import Materialiser
from product_classifier.versioning.serial import state_folder

logger = logging.getLogger(__name__)

CHAMPION_OUT = "models/champion.json"
CANDIDATE_OUT = "models/candidate"


@dataclass(frozen=True)
class ChampionSource:
    """A recorded champion, and where its bundle can be taken from."""

    content_id: str
    manifest_sha256: str
    bundle: Entry | None  # recorded folder; None: its release is here already


def find_champion(
    materialiser: Materialiser, index: StateIndex, lock: LockFile
) -> ChampionSource | None:
    """Finds the champion's bytes: among the releases, as the state's candidate, or another's.

    Returns:
        The source, its objects in the cache; None where the state has no champion.

    Raises:
        VersioningError: no recorded training has that content.
    """
    recorded = lock.out(CHAMPION_OUT)
    if recorded is None:
        return None
    materialiser.fetch([recorded])
    said = json.loads(materialiser.read(recorded))
    content_id, manifest = str(said["content_id"]), str(said["manifest_sha256"])
    if _has_release(materialiser.objects.repository.workspace, content_id, manifest):
        return ChampionSource(content_id, manifest, None)
    bundle = _find_bundle(materialiser, index, lock, content_id, manifest)
    materialiser.fetch([bundle])
    return ChampionSource(content_id, manifest, bundle)


def _has_release(workspace: Workspace, content_id: str, manifest_sha256: str) -> bool:
    path = workspace.releases / content_id[:RELEASE_ID_DIGITS]
    try:
        load_bundle(path)
    except ArtifactError:
        return False
    return sha256_file(path / MANIFEST) == manifest_sha256


def _find_bundle(
    materialiser: Materialiser,
    index: StateIndex,
    lock: LockFile,
    content_id: str,
    manifest_sha256: str,
) -> Entry:
    own = lock.out(CANDIDATE_OUT)
    if own is not None and _manifest_hash(materialiser, own) == manifest_sha256:
        return own
    # Equal content with other file bytes (a second training of the same) is second best.
    for key, wanted in (("manifest_sha256", manifest_sha256), ("content_id", content_id)):
        for entry in index.all():
            matches = (entry.candidate or {}).get(key) == wanted and not entry.missing
            if matches and (found := _candidate_of(index, entry)):
                return found
    raise VersioningError(
        f"The champion {content_id[:RELEASE_ID_DIGITS]} of this state can't be had: "
        "no recorded training on the remote made it."
    )


def _candidate_of(index: StateIndex, entry: StateEntry) -> Entry | None:
    try:
        return parse_lock(index.load(entry).lock).out(CANDIDATE_OUT)
    except VersioningError as error:
        logger.warning("%s", error)
        return None


def _manifest_hash(materialiser: Materialiser, bundle: Entry) -> str | None:
    materialiser.remote.fetch([bundle.md5])
    members = {member.path: member for member in materialiser.objects.listing(bundle)}
    if MANIFEST not in members:
        return None
    materialiser.remote.fetch([members[MANIFEST].md5])
    return sha256_bytes(materialiser.read(members[MANIFEST]))


def publish_champion(materialiser: Materialiser, source: ChampionSource, state: str) -> str:
    """Publishes the release if it is not there, and points the champion at it; gives its id."""
    workspace = materialiser.objects.repository.workspace
    release_id = source.content_id[:RELEASE_ID_DIGITS]
    if source.bundle is not None:
        # A fixed place, so that the next restore removes what a killed one left.
        folder = state_folder(workspace) / "champion"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        materialiser.fill(folder, source.bundle)
        release_id = publish_release(workspace, folder).release_id
        shutil.rmtree(folder)
    release = point_champion(workspace, release_id, f"restored state {state}", kind="restore")
    if release.manifest_sha256 != source.manifest_sha256:
        logger.warning(
            "Release %s computes what the recorded champion did, but another training made it.",
            release_id,
        )
    return release.release_id
