"""Hashing everything again: is what is served what was trained, and all what its name says?"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from product_classifier.core.bundle import MANIFEST, Manifest, find_damage, read_manifest
from product_classifier.core.errors import ArtifactError, VersioningError
from product_classifier.core.files import read_json, sha256_file
from product_classifier.core.progress import report_progress
from product_classifier.core.workspace import Workspace
from product_classifier.versioning.champion import CANDIDATE_OUT, CHAMPION_OUT
from product_classifier.versioning.deadline import within
from product_classifier.versioning.index import StateIndex
from product_classifier.versioning.lockfile import Entry, LockFile, parse_lock
from product_classifier.versioning.materialise import Materialiser
from product_classifier.versioning.remote import Objects, Remote, md5_file
from product_classifier.versioning.repository import Repository
from product_classifier.versioning.serial import state_folder

logger = logging.getLogger(__name__)

_HASHERS = 2
_SHOWN = 5


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    what: str
    checked: int  # files or objects that were hashed
    problems: tuple[str, ...] = ()


@dataclass
class Report:
    """What `verify` found."""

    checks: list[Check] = field(default_factory=list)
    served: str = ""  # is what is served what was trained?

    @property
    def is_sound(self) -> bool:
        """Says whether nothing differs."""
        return not any(check.problems for check in self.checks)

    def lines(self) -> Iterator[str]:
        """Renders the report as a table, then the answer about what is served."""
        width = max(len(check.what) for check in self.checks)
        for check in self.checks:
            state = "DIFFERS" if check.problems else "ok"
            yield f"{check.what:<{width}}  {check.checked:>6} hashed  {state}"
            yield from (f"    {problem}" for problem in check.problems[:_SHOWN])
            if len(check.problems) > _SHOWN:
                yield f"    and {len(check.problems) - _SHOWN} more"
        yield self.served


def verify_workspace(repository: Repository, *, with_remote: bool = False) -> Report:
    """Hashes the champion, the outputs, the cache and, if asked, the remote's objects again.

    Nothing is believed: neither DVC's notes about files it knows nor a listing of the remote.
    """
    lock, objects, remote = repository.lock_file(), Objects(repository), Remote(repository)
    materialiser = Materialiser(objects, remote)
    report = Report()
    report.checks.append(_check_champion(repository.workspace, lock))
    for entry in lock.outs():
        report.checks.append(_check_out(materialiser, repository.workspace, entry))
    report.checks.append(_check_cache(repository))
    if with_remote:
        report.checks.append(_check_remote(repository, objects, remote, lock))
    report.served = _say_served(materialiser, lock, report)
    return report


def _check_champion(workspace: Workspace, lock: LockFile) -> Check:
    """Compares the champion's files with its manifest, and `champion.json` with both."""
    what = "models/champion (served)"
    if not workspace.champion.exists():
        gone = lock.out(CHAMPION_OUT) is not None
        return Check(what, 0, ("there is none, though one was recorded",) if gone else ())
    try:
        manifest = read_manifest(workspace.champion)
    except ArtifactError as error:
        return Check(what, 0, (str(error),))
    problems = find_damage(workspace.champion, manifest)
    problems += _check_champion_file(workspace, manifest)
    return Check(what, len(manifest.files) + 2, tuple(problems))


def _check_champion_file(workspace: Workspace, manifest: Manifest) -> list[str]:
    try:
        said = read_json(workspace.champion_file)
    except (OSError, ValueError) as error:
        return [f"champion.json can't be read: {error}"]
    expected = {
        "release": workspace.champion.resolve().name,
        "content_id": manifest.content_id,
        "manifest_sha256": sha256_file(workspace.champion / MANIFEST),
    }
    return [
        f"champion.json says {key} {said.get(key)!r}, the champion is {value!r}"
        for key, value in expected.items()
        if said.get(key) != value
    ]


def _check_out(materialiser: Materialiser, workspace: Workspace, entry: Entry) -> Check:
    problems = materialiser.differs(workspace.root, entry)
    try:
        count = len(materialiser.objects.listing(entry))
    except VersioningError:
        count = 0
    return Check(f"{entry.path} (recorded)", count, tuple(problems))


def _check_cache(repository: Repository) -> Check:
    root = repository.object_path("0" * 32).parents[1]
    paths = sorted(path for path in root.glob("??/*") if not path.name.startswith("."))
    wrong: list[str] = []
    with report_progress("Hashing the cache", len(paths), "objects") as progress:

        def _hash(path: Path) -> None:
            name = path.parent.name + path.name
            if md5_file(path) != name.removesuffix(".dir"):
                wrong.append(f"object {name} is damaged")
            progress.advance()

        with ThreadPoolExecutor(max_workers=_HASHERS) as pool:
            list(pool.map(_hash, paths))
    return Check("DVC cache", len(paths), tuple(sorted(wrong)))


def _check_remote(
    repository: Repository, objects: Objects, remote: Remote, lock: LockFile
) -> Check:
    what = f"DVC remote {repository.address}"
    scratch = state_folder(repository.workspace) / "verify"

    def _read_back() -> tuple[list[str], dict[str, str]]:
        remote.check_reachable()
        names = list(dict.fromkeys(objects.names(lock.outs())))
        return names, remote.damaged(names, scratch)

    limit = repository.settings.dvc_timeout_seconds
    try:
        names, wrong = within(limit, "Reading the DVC remote back", _read_back)
    except VersioningError as error:
        return Check(what, 0, (str(error),))
    return Check(what, len(names), tuple(f"object {n}: {w}" for n, w in sorted(wrong.items())))


def _say_served(materialiser: Materialiser, lock: LockFile, report: Report) -> str:
    """Answers in a sentence whether the champion's bytes are what a recorded training made."""
    workspace = materialiser.objects.repository.workspace
    if not workspace.champion.exists():
        return "Nothing is served yet: there is no champion."
    try:
        manifest = read_manifest(workspace.champion)
    except ArtifactError as error:
        return f"NO: what is served can't be read. {error}"
    release = manifest.content_id[:16]
    try:
        origin = _find_training(materialiser, lock, manifest)
    except VersioningError as error:
        return f"It can't be told which training made release {release}: {error}"
    if origin is None:
        return f"It can't be told which training made release {release}: no recorded one did."
    name, bundle = origin
    differing = _differing(materialiser, workspace.champion, bundle)
    if differing:
        report.checks.append(Check("served against trained", len(manifest.files), tuple(differing)))
        return f"NO: release {release} is served, and it is not what {name} trained."
    return f"YES: what is served is what was trained: release {release}, made by {name}."


def _find_training(
    materialiser: Materialiser, lock: LockFile, manifest: Manifest
) -> tuple[str, Entry] | None:
    own = lock.out(CANDIDATE_OUT)
    if own is not None and _content_of(materialiser, own) == manifest.content_id:
        return "the training of this state", own
    index = StateIndex(materialiser.remote)
    materialiser.remote.check_reachable()
    for entry in index.all():
        if (entry.candidate or {}).get("content_id") == manifest.content_id:
            bundle = parse_lock(index.load(entry).lock).out(CANDIDATE_OUT)
            if bundle is not None:
                materialiser.remote.fetch([bundle.md5])
                return f"training {entry.run_id or entry.entry_id}", bundle
    return None


def _content_of(materialiser: Materialiser, bundle: Entry) -> str | None:
    try:
        members = {m.path: m for m in materialiser.objects.listing(bundle)}
        content = materialiser.read(members[MANIFEST])
    except (VersioningError, KeyError, OSError):
        return None
    return Manifest.model_validate_json(content).content_id


def _differing(materialiser: Materialiser, champion: Path, bundle: Entry) -> list[str]:
    members = {m.path: m.md5 for m in materialiser.objects.listing(bundle)}
    return [
        f"{name} differs from the recorded candidate"
        for name, md5 in sorted(members.items())
        if not (champion / name).is_file() or md5_file(champion / name) != md5
    ]
