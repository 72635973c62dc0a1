"""Must a stage run? DVC's own status of that stage, in words."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from product_classifier.versioning.lockfile import LockFile
from product_classifier.versioning.notes import is_recorded, note_start
from product_classifier.versioning.repository import Repository

logger = logging.getLogger(__name__)

# An operator moves the champion too (`rollback`): a moved one is to be recorded, and no reason to
# judge again.
_MOVED_BY_HAND = frozenset({"gate"})
_VALUES_SHOWN = 8


@dataclass(frozen=True)
class Verdict:
    """What `check` found."""

    stage: str
    reasons: list[str] = field(default_factory=list)  # why the stage must run; empty: it need not
    unrecorded: str = ""  # what of an unchanged stage is still to be recorded

    @property
    def must_run(self) -> bool:
        """Says whether the stage has to run."""
        return bool(self.reasons)


def check_stage(repository: Repository, stage: str, *, force: bool = False) -> Verdict:
    """Asks DVC whether a stage's dependencies, parameters or outputs differ from what was recorded.

    Call it after the stage's probe was written. What it finds to run it notes down, so that
    `version` can tell whether an input changed meanwhile.
    """
    lock = repository.lock_file()
    outs = repository.workspace_changes(stage)
    reasons = ["a run is forced"] if force else []
    if stage not in lock.stages:
        note_start(repository.workspace, stage, repository.inputs(stage))
        return Verdict(stage, [*reasons, "it was never recorded"])
    for item in repository.status(stage):
        reasons += _explain(item, stage, repository, lock)
    moved = [path for path, change in outs.items() if change == "modified"]
    by_hand = stage in _MOVED_BY_HAND
    reasons += [
        f"output {path} is {_OUT_WORDS.get(change, change)}"
        for path, change in sorted(outs.items())
        if not (by_hand and change == "modified")
    ]
    if reasons:
        note_start(repository.workspace, stage, repository.inputs(stage))
        return Verdict(stage, reasons)
    if moved:
        return Verdict(stage, unrecorded=f"{', '.join(moved)} was changed by hand")
    if not is_recorded(repository.workspace, lock, stage, repository.address):
        return Verdict(stage, unrecorded=f"not known to be on the remote {repository.address}")
    return Verdict(stage)


_DEP_WORDS = {"modified": "changed", "deleted": "missing", "new": "new"}
_OUT_WORDS = {"modified": "not what was recorded", "deleted": "missing", "new": "not recorded yet"}


def _explain(item: Any, stage: str, repository: Repository, lock: LockFile) -> list[str]:
    if isinstance(item, str):
        return [{"changed command": "its command in dvc.yaml changed"}.get(item, item)]
    reasons = []
    for path, change in item.get("changed deps", {}).items():
        if path == repository.workspace.params.name:
            reasons += _explain_params(stage, repository, lock)
        else:
            reasons.append(f"{path} is {_DEP_WORDS.get(change, change)}")
    return reasons  # outputs are judged by the workspace alone: a lost cache is no reason to run


def _explain_params(stage: str, repository: Repository, lock: LockFile) -> list[str]:
    current = repository.inputs(stage).get(repository.workspace.params.name)
    before, now = _flatten(lock.stages[stage].params), _flatten(current or {})
    changes = [
        f"{key}: {before.get(key, 'not set')} -> {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    shown = changes[:_VALUES_SHOWN]
    if len(changes) > len(shown):
        shown.append(f"and {len(changes) - len(shown)} more")
    return [f"params {'; '.join(shown) or 'changed'}"]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
