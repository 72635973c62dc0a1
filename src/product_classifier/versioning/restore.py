"""The way back to a recorded state, on an empty clone as well."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from product_classifier.core.errors import ConfigurationError, VersioningError
from product_classifier.core.files import sha256_bytes, write_bytes_atomic
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.latest import set_latest
from product_classifier.versioning.champion import (
    CHAMPION_OUT,
    ChampionSource,
    find_champion,
    publish_champion,
)
from product_classifier.versioning.deadline import within
from product_classifier.versioning.index import State, StateEntry, StateIndex, find_entry
from product_classifier.versioning.lockfile import (
    LOCK_FILE,
    STAGES,
    Entry,
    LockFile,
    parse_lock,
    parse_yaml,
)
from product_classifier.versioning.materialise import Materialiser, files_in
from product_classifier.versioning.notes import note_recorded
from product_classifier.versioning.params_file import replace_sections
from product_classifier.versioning.record import read_mlflow_id
from product_classifier.versioning.remote import Objects, Remote, md5_file
from product_classifier.versioning.repository import Repository
from product_classifier.versioning.serial import state_folder

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 10


@dataclass
class Restored:
    """What a restore did."""

    entry: StateEntry
    fetched: int = 0  # objects brought from the remote
    placed: list[str] = field(default_factory=list)  # outputs that were replaced
    kept: list[str] = field(default_factory=list)  # outputs that were right already
    champion: str | None = None

    def summary(self) -> list[str]:
        """Says it in lines for people."""
        return [
            f"Restored state {self.entry.entry_id} of {self.entry.at}, lock {self.entry.lock_id}.",
            f"Replaced: {', '.join(self.placed) or 'nothing'}.",
            f"Already right: {', '.join(self.kept) or 'nothing'}.",
            f"Fetched {self.fetched} objects. Champion: {self.champion or 'none in this state'}.",
        ]


@dataclass(frozen=True)
class _Fetched:
    """A state whose every object is in the cache."""

    state: State
    lock: LockFile
    chosen: list[str]  # stages
    entries: list[Entry]  # their outputs
    objects: int  # brought from the remote
    champion: ChampionSource | None


def restore_state(
    repository: Repository, wanted: str | None, stages: Sequence[str] = (), *, force: bool = False
) -> Restored:
    """Brings back data, models, reports, predictions, parameters and champion of a state.

    Everything is fetched and checked before the first file of the workspace is touched, and each
    output is then replaced in one step. Interrupted, the same call completes it.

    Args:
        repository: Where.
        wanted: An id (see `find_entry`); None for the newest complete state.
        stages: Restore only the outputs and parameters of these; all of them if empty.
        force: Give up local files that neither the cache nor the remote holds.

    Raises:
        ConfigurationError: no state, or more than one, is meant.
        VersioningError: something would be lost, is damaged, or can't be fetched; nothing was
            changed.
    """
    materialiser = Materialiser(Objects(repository), Remote(repository))
    fetched = within(
        repository.settings.dvc_timeout_seconds,
        "Restoring from the DVC remote",
        lambda: _fetch(materialiser, wanted, stages),
    )
    result = Restored(fetched.state.entry, fetched=fetched.objects)
    result.kept, to_place = _split(repository, fetched.entries)
    if not force:
        _refuse_loss(repository, to_place)
    _apply(materialiser, fetched, to_place, result)
    return result


def _fetch(materialiser: Materialiser, wanted: str | None, stages: Sequence[str]) -> _Fetched:
    state = find_state(materialiser.remote, wanted)
    lock = parse_lock(state.lock, f"{LOCK_FILE} of {state.entry.entry_id}")
    chosen = [name for name in stages or STAGES if name in lock.stages]
    if not chosen:
        raise ConfigurationError(
            f"State {state.entry.entry_id} has no outputs of {', '.join(stages or STAGES)}. "
            f"It has those of: {', '.join(lock.stages) or 'no stage'}."
        )
    entries = sorted(e for name in chosen for e in lock.stages[name].outs)
    objects = materialiser.fetch(entries)
    champion = None
    if "gate" in chosen:
        champion = find_champion(materialiser, StateIndex(materialiser.remote), lock)
    return _Fetched(state, lock, chosen, entries, objects, champion)


def find_state(remote: Remote, wanted: str | None) -> State:
    """Finds a state on the remote or, where only a training's local record knows it, in `runs/`.

    Raises:
        ConfigurationError: there is none of that name, or several.
        VersioningError: the remote can't be reached.
    """
    workspace = remote.repository.workspace
    local = _local_state(workspace, wanted) if wanted else None
    try:
        remote.check_reachable()
    except VersioningError as error:
        if local is None:
            raise
        logger.warning("%s. Going on with the local record of run %s.", error, local.entry.run_id)
        return local
    index = StateIndex(remote)
    if wanted is None:
        newest = index.latest()
        if newest is None:
            raise ConfigurationError(
                f"The DVC remote {remote.repository.address} holds no recorded state yet."
            )
        return index.load(newest)
    entries = index.all()
    found = find_entry(entries, wanted) or find_entry(entries, _our_run_id(workspace, wanted))
    if found is not None:
        return index.load(found)
    if local is not None:
        return local
    known = ", ".join(entry.entry_id for entry in entries[:_NAMES_SHOWN]) or "none"
    raise ConfigurationError(f"No recorded state is called {wanted!r}. The newest are: {known}.")


def _our_run_id(workspace: Workspace, wanted: str) -> str:
    """Translates an MLflow run id unknown to the index: uploaded after the recording."""
    for record in sorted(workspace.runs.glob("*")):
        if read_mlflow_id(record).get("mlflow_run_id", "").startswith(wanted):
            return record.name
    return wanted


def _local_state(workspace: Workspace, wanted: str) -> State | None:
    matches = [path for path in workspace.runs.glob("*") if path.name.startswith(wanted)]
    if len(matches) != 1:
        return None
    files = matches[0] / "artifacts" / "lineage"
    try:
        lock, params = (files / LOCK_FILE).read_bytes(), (files / "params.yaml").read_bytes()
    except OSError:
        return None
    entry = StateEntry(
        entry_id=matches[0].name,
        at="an unknown time",
        stage="train",
        lock_id=parse_lock(lock).lock_id,
        lock_sha256=sha256_bytes(lock),
        params_sha256=sha256_bytes(params),
        run_id=matches[0].name,
        mlflow_run_id=None,
        airflow_run_id=None,
        candidate=None,
        champion=None,
    )
    return State(entry, lock, params)


def _split(repository: Repository, entries: list[Entry]) -> tuple[list[str], list[Entry]]:
    """Separates the outputs that are right already from those to place."""
    current = repository.hash_outputs()
    # champion.json is written by the move of the champion itself, never on its own.
    wanted = [entry for entry in entries if entry.path != CHAMPION_OUT]
    kept = [entry.path for entry in wanted if current.get(entry.path) == entry.md5]
    return kept, [entry for entry in wanted if entry.path not in kept]


def _refuse_loss(repository: Repository, to_place: list[Entry]) -> None:
    objects = Objects(repository)
    lost = [
        f"{entry.path}/{name}".rstrip("/")
        for entry in to_place
        for name, path in _files_of(repository.workspace, entry.path)
        if not objects.in_cache(md5_file(path))
    ]
    if lost:
        shown = ", ".join(lost[:_NAMES_SHOWN]) + (" …" if len(lost) > _NAMES_SHOWN else "")
        raise VersioningError(
            f"Nothing was restored: {len(lost)} files were never recorded and would be lost: "
            f"{shown}. Record them with `product-classifier version <stage>`, "
            "or give them up with --force."
        )


def _files_of(workspace: Workspace, name: str) -> list[tuple[str, Any]]:
    path = workspace.root / name
    if path.is_file():
        return [("", path)]
    return [(file, path / file) for file in sorted(files_in(path))] if path.is_dir() else []


def _apply(
    materialiser: Materialiser, fetched: _Fetched, to_place: list[Entry], result: Restored
) -> None:
    repository = materialiser.objects.repository
    workspace = repository.workspace
    state, chosen = fetched.state, fetched.chosen
    _keep_previous(workspace, state)
    for entry in to_place:
        materialiser.place(workspace.root, entry)
        result.placed.append(entry.path)
    if fetched.champion is not None:
        entry_id = state.entry.entry_id
        result.champion = publish_champion(materialiser, fetched.champion, entry_id)
    # Last, and dvc.lock after params.yaml: until then the workspace counts as changed, so a rerun
    # does it all.
    whole = set(chosen) == set(fetched.lock.stages)
    params = state.params if whole else _merge_params(workspace, state.params, chosen)
    write_bytes_atomic(workspace.params, params)
    content = state.lock if whole else _merge_lock(workspace, state.lock, chosen)
    write_bytes_atomic(workspace.root / LOCK_FILE, content)
    for name in chosen:
        note_recorded(workspace, repository.lock_file(), name, repository.address)
    _name_run(workspace, state.entry)


def _keep_previous(workspace: Workspace, state: State) -> None:
    """Keeps dvc.lock and params.yaml as they were: edits in them may be recorded nowhere."""
    folder = state_folder(workspace) / "before-restore" / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for file, new in ((workspace.root / LOCK_FILE, state.lock), (workspace.params, state.params)):
        if file.exists() and file.read_bytes() != new:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, folder)
            logger.info("%s as it was is kept at %s.", file.name, folder / file.name)


def _merge_params(workspace: Workspace, params: bytes, chosen: list[str]) -> bytes:
    wanted = parse_yaml(params) or {}
    current = workspace.params.read_text(encoding="utf-8") if workspace.params.exists() else ""
    return replace_sections(current, {n: wanted[n] for n in chosen if n in wanted}).encode()


def _merge_lock(workspace: Workspace, lock: bytes, chosen: list[str]) -> bytes:
    path = workspace.root / LOCK_FILE
    wanted = parse_yaml(lock)
    current = (parse_yaml(path.read_bytes()) if path.exists() else None) or {}
    stages = {**(current.get("stages") or {}), **{name: wanted["stages"][name] for name in chosen}}
    return yaml.safe_dump(
        {**wanted, "stages": stages}, sort_keys=False, allow_unicode=True
    ).encode()


def _name_run(workspace: Workspace, entry: StateEntry) -> None:
    # Only where its record is: a training that was recorded elsewhere has none here.
    if entry.run_id and entry.candidate and (workspace.runs / entry.run_id / "run.json").exists():
        set_latest(workspace, entry.run_id, entry.candidate["content_id"])
