"""Recording a stage: into the cache and `dvc.lock`, onto the remote, and proven to be there."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from product_classifier.core.bundle import MANIFEST
from product_classifier.core.errors import TrackingError, VersioningError
from product_classifier.core.files import read_json, sha256_bytes, sha256_file
from product_classifier.core.workspace import Workspace
from product_classifier.versioning.deadline import within
from product_classifier.versioning.index import State, StateEntry, StateIndex, entry_name
from product_classifier.versioning.lineage import collect_lineage
from product_classifier.versioning.lockfile import LOCK_FILE, Entry, LockFile, parse_yaml
from product_classifier.versioning.notes import changed_since_start, note_recorded, read_origin
from product_classifier.versioning.push_metrics import noted_push
from product_classifier.versioning.remote import Objects, Remote
from product_classifier.versioning.repository import Repository

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """What `version` did."""

    stage: str
    objects: int  # objects the stage needs on the remote, all of them proven to be there
    repaired: list[str]  # objects the push left out, sent one by one
    entry: StateEntry


def record_stage(repository: Repository, stage: str) -> Recording:
    """Commits a stage to DVC, pushes it, proves that the remote has it, and keeps the state there.

    Every step can be repeated: after a kill, or with the remote away, the same call finishes the
    work. The local commit comes first and is never undone.

    Raises:
        VersioningError: an output is missing, or the remote is away, refuses or lacks an object.
    """
    changed = changed_since_start(repository.workspace, stage, repository.inputs(stage))
    if changed:
        logger.warning(
            "%s changed after %s was checked: its outputs are recorded with the new state.",
            ", ".join(changed),
            stage,
        )
    repository.commit(stage)
    lock = repository.lock_file()
    lineage = {**collect_lineage(repository.workspace, lock), "changed_while_running": changed}
    if stage == "train":
        _attach_to_run(repository, lineage)
    try:
        with noted_push(repository.workspace, stage):
            return within(
                repository.settings.dvc_timeout_seconds,
                f"Sending {stage} to the DVC remote",
                lambda: _publish(repository, stage, lock, lineage),
            )
    except VersioningError as error:
        hint = (
            f"The local commit of {stage} is kept: run `product-classifier version {stage}` again."
        )
        raise type(error)(f"{error} {hint}") from error


def _publish(
    repository: Repository, stage: str, lock: LockFile, lineage: dict[str, Any]
) -> Recording:
    objects, remote = Objects(repository), Remote(repository)
    remote.check_reachable()
    names = objects.names(lock.stages[stage].outs)
    repository.push(stage)
    repaired = _ensure(remote, names)
    others = [e for name, s in lock.stages.items() if name != stage for e in s.outs]
    missing = _ensure_others(remote, objects, others)
    entry = _keep_state(repository, remote, stage, lock, lineage, missing)
    note_recorded(repository.workspace, lock, stage, repository.address)
    logger.info("Recorded %s: %d objects on %s.", stage, len(names), repository.address)
    return Recording(stage, len(names), repaired, entry)


def _ensure(remote: Remote, names: list[str]) -> list[str]:
    """Sends what the push left out: DVC trusts a listing on the remote, and its own notes."""
    missing = remote.missing(names)
    if missing:
        logger.warning("The remote lacked %d objects after the push; sending them.", len(missing))
        remote.upload(missing)
        if still := remote.missing(missing):
            raise VersioningError(
                f"The remote lacks {len(still)} objects after two tries: {still[:3]}."
            )
    return missing


def _ensure_others(remote: Remote, objects: Objects, entries: list[Entry]) -> list[str]:
    """Completes what the other stages need, as far as the cache has it; gives what is lost.

    Another stage's data may have been recorded while the remote was away.
    """
    names: list[str] = []
    lost: list[str] = []
    for entry in entries:
        try:
            names += objects.names([entry])
        except VersioningError:
            lost += remote.missing(
                [entry.md5]
            )  # no listing in the cache: nothing more is known about it
    missing = remote.missing(names)
    there = [name for name in missing if objects.in_cache(name)]
    remote.upload(there)
    lost += [name for name in missing if name not in set(there)]
    if lost:
        logger.warning(
            "%d objects of earlier stages are neither here nor on the remote.", len(lost)
        )
    return sorted(set(lost))


def _keep_state(
    repository: Repository,
    remote: Remote,
    stage: str,
    lock: LockFile,
    lineage: dict[str, Any],
    missing: list[str],
) -> StateEntry:
    workspace = repository.workspace
    params = workspace.params.read_bytes()
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    candidate = _describe_candidate(workspace, lock) or _candidate_elsewhere(workspace, lock, stage)
    run = _training_run(workspace, candidate) if is_of_one_training(lock, params) else {}
    airflow_run = lineage["airflow_run_id"]
    entry = StateEntry(
        entry_id=entry_name(at, run.get("run_id") or airflow_run or lock.lock_id),
        at=at,
        stage=stage,
        lock_id=lock.lock_id,
        lock_sha256=sha256_bytes(lock.content),
        params_sha256=sha256_bytes(params),
        run_id=run.get("run_id"),
        mlflow_run_id=run.get("mlflow_run_id"),
        airflow_run_id=airflow_run,
        candidate=candidate,
        champion=_read_or_none(workspace.champion_file)
        if lock.out("models/champion.json")
        else None,
        missing=missing,
        lineage=lineage,
    )
    index = StateIndex(remote)
    newest = next(index.newest_first(), None)
    if newest is not None and newest.same_state(entry):
        return newest
    index.add(State(entry, lock.content, params))
    return entry


def is_of_one_training(lock: LockFile, params: bytes) -> bool:
    """Says whether data, candidate and parameters of a state belong together.

    Between `version ingest` and `version train` they need not; such a state belongs to no training.
    """
    train, data = lock.stages.get("train"), lock.out("data/raw")
    if train is None or data is None or data not in train.deps:
        return False
    now = parse_yaml(params) or {}
    recorded = {**lock.stages["ingest"].params, **train.params}
    return all(now.get(section) == values for section, values in recorded.items())


def _training_run(workspace: Workspace, candidate: dict[str, str] | None) -> dict[str, str]:
    """Names the training that made the candidate: our id and, once uploaded, MLflow's."""
    latest = _read_or_none(workspace.runs / "latest.json") or {}
    if candidate is None or latest.get("content_id") != candidate["content_id"]:
        origin = read_origin(workspace)
        known = candidate is not None and origin.get("candidate") == candidate
        return {k: origin[k] for k in ("run_id", "mlflow_run_id") if known and origin.get(k)}
    run_id = str(latest["run_id"])
    return {"run_id": run_id, **read_mlflow_id(workspace.runs / run_id)}


def read_mlflow_id(record: Path) -> dict[str, str]:
    """Gives `mlflow_run_id` of a run record, if it was uploaded."""
    for name in ("upload.json", "run.json"):
        content = _read_or_none(record / name) or {}
        if content.get("mlflow_run_id"):
            return {"mlflow_run_id": str(content["mlflow_run_id"])}
    return {}


def _describe_candidate(workspace: Workspace, lock: LockFile) -> dict[str, str] | None:
    manifest = workspace.candidate / MANIFEST
    content = _read_or_none(manifest)
    if lock.out("models/candidate") is None or not content or "content_id" not in content:
        return None
    return {"content_id": content["content_id"], "manifest_sha256": sha256_file(manifest)}


def _candidate_elsewhere(workspace: Workspace, lock: LockFile, stage: str) -> dict[str, str] | None:
    """Describes a candidate that is not in this workspace, from the state that this one started from."""
    if stage == "train" or workspace.candidate.exists() or lock.out("models/candidate") is None:
        return None
    candidate = read_origin(workspace).get("candidate")
    return candidate if isinstance(candidate, dict) else None


def _read_or_none(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _attach_to_run(repository: Repository, lineage: dict[str, Any]) -> None:
    """Adds lineage and lock to the training's run record; tracking never fails a recording."""
    from product_classifier.tracking.lineage import attach_lineage

    workspace = repository.workspace
    files = [workspace.root / LOCK_FILE, workspace.params]
    try:
        attach_lineage(workspace, lineage, files, settings=repository.settings)
    except (TrackingError, OSError) as error:
        logger.warning("The run record got no lineage: %s", error)
