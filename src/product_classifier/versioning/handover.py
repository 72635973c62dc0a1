"""Work without a shared folder: a stage's command takes what it needs from the DVC remote, and sends what it made.

WORKSPACE_SYNC=dvc, for workers on several machines. The remote's newest state is the truth: its `dvc.lock` replaces
the one here, and of the outputs those are fetched that the command reads, no other. What is not an output of a stage
goes by way of the remote as well, under the pipeline run's id: the parameters of the trigger form, the parts of a
batch prediction in shards.
"""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from product_classifier.core.errors import VersioningError
from product_classifier.core.files import write_bytes_atomic
from product_classifier.core.workspace import Workspace
from product_classifier.versioning.champion import CHAMPION_OUT, find_champion, publish_champion
from product_classifier.versioning.check import Verdict
from product_classifier.versioning.deadline import within
from product_classifier.versioning.index import StateIndex
from product_classifier.versioning.lockfile import LOCK_FILE, LockFile, StageLock, parse_lock
from product_classifier.versioning.materialise import Materialiser
from product_classifier.versioning.notes import note_origin, note_recorded
from product_classifier.versioning.remote import Objects, Remote
from product_classifier.versioning.repository import Repository
from product_classifier.versioning.serial import state_folder

logger = logging.getLogger(__name__)

FOLDER = "handover"
PARAMS, PARTS = "params.yaml", "parts"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def run_folder() -> str:
    """Names the pipeline run whose hand-over this is; by hand, without Airflow, there is one for all."""
    return _UNSAFE.sub("-", os.environ.get("AIRFLOW_RUN_ID") or "by-hand")[:120]


# State


def receive(repository: Repository, needed: Iterable[str]) -> None:
    """Makes the workspace that of the remote's newest state, as far as a command needs it.

    Args:
        repository: Where. Local outputs that differ are replaced: the remote is the truth here.
        needed: Outputs to fetch; those that no stage has recorded yet are left out. `models/champion.json`
            brings the champion's bundle with it.

    Raises:
        VersioningError: the remote can't be reached, or lacks an object.
    """
    wanted = set(needed)
    within(
        repository.settings.dvc_timeout_seconds,
        "Receiving from the DVC remote",
        lambda: _receive(repository, wanted),
    )


def _receive(repository: Repository, wanted: set[str]) -> None:
    workspace, remote = repository.workspace, Remote(repository)
    remote.check_reachable()
    _use_params(workspace, _params_of_run(remote))
    newest = StateIndex(remote).latest()
    if newest is None:
        logger.info("The remote %s holds no state yet: starting from nothing.", repository.address)
        return
    state = StateIndex(remote).load(newest)
    lock = parse_lock(state.lock, f"{LOCK_FILE} of {newest.entry_id}")
    materialiser = Materialiser(Objects(repository), remote)
    entries = [
        entry for entry in lock.outs() if entry.path in wanted and entry.path != CHAMPION_OUT
    ]
    fetched = materialiser.fetch(entries)
    current = repository.hash_outputs()
    for entry in entries:
        if current.get(entry.path) != entry.md5:
            materialiser.place(workspace.root, entry)
    if CHAMPION_OUT in wanted:
        champion = find_champion(materialiser, StateIndex(remote), lock)
        if champion is not None:
            publish_champion(materialiser, champion, newest.entry_id)
    write_bytes_atomic(workspace.root / LOCK_FILE, state.lock)
    for name in lock.stages:
        note_recorded(workspace, lock, name, repository.address)
    note_origin(workspace, newest)
    logger.info("Started from state %s: fetched %d objects.", newest.entry_id, fetched)


def prove(repository: Repository, stage: str) -> int:
    """Makes sure that the remote holds all that a stage recorded; gives the number of objects.

    Raises:
        VersioningError: the stage was never recorded, or an object is missing.
    """

    def look() -> int:
        locked = repository.lock_file().stages.get(stage)
        if locked is None:
            raise VersioningError(f"{stage} was never recorded: run it again, which records it.")
        remote, objects = Remote(repository), Objects(repository)
        remote.fetch(entry.md5 for entry in locked.outs if entry.is_directory)
        names = objects.names(locked.outs)
        if missing := remote.missing(names):
            raise VersioningError(
                f"The remote lacks {len(missing)} objects of {stage}: {missing[:3]}. Run {stage} again."
            )
        return len(names)

    return within(
        repository.settings.dvc_timeout_seconds, f"Looking for {stage} on the remote", look
    )


def check_received(repository: Repository, stage: str, *, force: bool = False) -> Verdict:
    """Says whether a stage must run, by hashes alone: data that another stage recorded need not be here.

    Call it after `receive` and after the stage's probe was written.
    """
    lock = repository.lock_file()
    reasons = ["a run is forced"] if force else []
    recorded = lock.stages.get(stage)
    if recorded is None:
        return Verdict(stage, [*reasons, "it was never recorded"])
    reasons += _changed_inputs(repository, lock, recorded, stage)
    remote = Remote(repository)
    lost = within(
        repository.settings.dvc_timeout_seconds,
        "Looking for outputs on the remote",
        lambda: remote.missing(entry.md5 for entry in recorded.outs),
    )
    reasons += [f"output {e.path} is not on the remote" for e in recorded.outs if e.md5 in lost]
    return Verdict(stage, reasons)


def _changed_inputs(
    repository: Repository, lock: LockFile, recorded: StageLock, stage: str
) -> list[str]:
    inputs = repository.inputs(stage)
    params = inputs.pop(repository.workspace.params.name, None)
    before = {entry.path: entry.md5 for entry in recorded.deps}
    reasons = []
    for path, here in sorted(inputs.items()):
        made = lock.out(path)
        # What another stage makes is judged by what it recorded, here or not.
        now = made.md5 if made else here
        if now != before.get(path):
            reasons.append(f"{path} is {'changed' if now else 'missing'}")
    if repository.command(stage) != recorded.command:
        reasons.append("its command in dvc.yaml changed")
    if params is not None and params != recorded.params:
        reasons.append("params changed")
    return reasons


# Parameters


def send_params(repository: Repository, own: bytes) -> None:
    """Hands the parameters of this run to its other commands; `own` is the file as it was before."""
    workspace, remote = repository.workspace, Remote(repository)
    given = workspace.params.read_bytes()
    remote.check_reachable()
    remote.write(remote.path(FOLDER, run_folder(), PARAMS), given)
    _keep_params(workspace, own, given)


def own_params(workspace: Workspace) -> None:
    """Takes back what an earlier run handed over: `params.yaml` is the checkout's own again."""
    _use_params(workspace, None)


def _params_of_run(remote: Remote) -> bytes | None:
    if not os.environ.get("AIRFLOW_RUN_ID"):
        return None
    return remote.read(remote.path(FOLDER, run_folder(), PARAMS))


def _use_params(workspace: Workspace, given: bytes | None) -> None:
    own_file, given_file = _params_notes(workspace)
    if own_file.exists() and given_file.exists():
        # Only where nobody has edited it since.
        if workspace.params.read_bytes() == given_file.read_bytes():
            write_bytes_atomic(workspace.params, own_file.read_bytes())
        given_file.unlink()
        own_file.unlink()
    own = workspace.params.read_bytes()
    if given is not None and given != own:
        _keep_params(workspace, own, given)
        write_bytes_atomic(workspace.params, given)


def _keep_params(workspace: Workspace, own: bytes, given: bytes) -> None:
    own_file, given_file = _params_notes(workspace)
    own_file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(own_file, own)
    write_bytes_atomic(given_file, given)


def _params_notes(workspace: Workspace) -> tuple[Path, Path]:
    folder = state_folder(workspace)
    return folder / "params-own.yaml", folder / "params-given.yaml"


# Parts of a prediction


def send_part(repository: Repository, part: Path) -> None:
    """Hands one shard's part to the merge, which may run elsewhere."""
    remote = Remote(repository)

    def send() -> None:
        remote.check_reachable()
        name = part.relative_to(_parts(repository.workspace)).as_posix()
        remote.write(remote.path(FOLDER, run_folder(), PARTS, *name.split("/")), part.read_bytes())

    within(repository.settings.dvc_timeout_seconds, "Sending a part of the predictions", send)


def receive_parts(repository: Repository) -> int:
    """Fetches the parts that the shards of this run have sent; gives their number."""
    remote, here = Remote(repository), _parts(repository.workspace)

    def fetch() -> int:
        remote.check_reachable()
        root = remote.path(FOLDER, run_folder(), PARTS)
        count = 0
        for key in remote.names_in(root):
            for name in remote.names_in(remote.path(FOLDER, run_folder(), PARTS, key)):
                content = remote.read(remote.path(FOLDER, run_folder(), PARTS, key, name))
                if content is not None:
                    (here / key).mkdir(parents=True, exist_ok=True)
                    write_bytes_atomic(here / key / name, content)
                    count += 1
        return count

    return within(repository.settings.dvc_timeout_seconds, "Fetching the parts", fetch)


def _parts(workspace: Workspace) -> Path:
    return workspace.predictions.with_name("predictions.parts")
