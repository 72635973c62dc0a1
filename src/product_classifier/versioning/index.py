"""The index of recorded states on the remote: `runs/<UTC time>-<run id>/`.

Each folder holds dvc.lock, params.yaml and entry.json.

With it an empty clone that can reach the remote needs nothing else to get any state back.
`entry.json` is written
last: a folder without it is what a kill left behind, and no state.
"""

import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from product_classifier.core.errors import ConfigurationError, VersioningError
from product_classifier.core.files import sha256_bytes
from product_classifier.versioning.lockfile import LOCK_FILE
from product_classifier.versioning.remote import Remote

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
RUNS_FOLDER = "runs"
ENTRY_FILE = "entry.json"
PARAMS_FILE = "params.yaml"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class StateEntry:
    """What the index knows about one recorded state."""

    entry_id: str
    at: str  # UTC, ISO 8601
    stage: str  # whose recording made it
    lock_id: str
    lock_sha256: str
    params_sha256: str
    run_id: str | None  # the training that made all of this state's models from this state's data
    mlflow_run_id: str | None
    airflow_run_id: str | None
    candidate: dict[str, str] | None  # content_id, manifest_sha256
    champion: dict[str, str] | None  # what champion.json says
    missing: list[str] = field(default_factory=list)  # objects that were nowhere to be had
    lineage: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def names(self) -> list[str]:
        """Lists the ids by which a user may ask for this state."""
        ids = (self.entry_id, self.run_id, self.mlflow_run_id, self.lock_id, self.airflow_run_id)
        return [name for name in ids if name]

    def same_state(self, other: "StateEntry") -> bool:
        """Says whether another entry records nothing that this one does not."""
        return replace(self, entry_id="", at="", lineage={}) == replace(
            other, entry_id="", at="", lineage={}
        )


@dataclass(frozen=True)
class State:
    """An entry with the files that make it restorable."""

    entry: StateEntry
    lock: bytes
    params: bytes


def entry_name(at: str, run_id: str) -> str:
    """Names a state so that names sort by time; any run id makes a usable folder name."""
    moment = at.replace("-", "").replace(":", "").split("+")[0]  # milliseconds stay
    return f"{moment}Z-{_UNSAFE.sub('-', run_id)[:80]}"


class StateIndex:
    """Reads and extends the index on one remote."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    def add(self, state: State) -> None:
        """Publishes a state; it can be found only when all of it is there."""
        folder = (RUNS_FOLDER, state.entry.entry_id)
        content = json.dumps(asdict(state.entry), indent=2, sort_keys=True, ensure_ascii=False)
        for name, data in (
            (LOCK_FILE, state.lock),
            (PARAMS_FILE, state.params),
            (ENTRY_FILE, content.encode()),
        ):
            self.remote.write(self.remote.path(*folder, name), data)

    def names(self) -> list[str]:
        """Lists the states' folders, newest first, complete or not."""
        return self.remote.names_in(self.remote.path(RUNS_FOLDER))[::-1]

    def newest_first(self) -> Iterator[StateEntry]:
        """Reads entries one by one, newest first."""
        return (entry for name in self.names() if (entry := self._read(name)) is not None)

    def all(self) -> list[StateEntry]:
        """Reads every entry, newest first."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            return [entry for entry in pool.map(self._read, self.names()) if entry is not None]

    def _read(self, name: str) -> StateEntry | None:
        content = self.remote.read(self.remote.path(RUNS_FOLDER, name, ENTRY_FILE))
        if content is None:
            return None
        try:
            values = json.loads(content)
            known = {item.name for item in fields(StateEntry)}
            return StateEntry(**{key: value for key, value in values.items() if key in known})
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning("State %s on the remote is not readable and is skipped: %s", name, error)
            return None

    def load(self, entry: StateEntry) -> State:
        """Fetches an entry's files.

        Raises:
            VersioningError: one is missing or damaged.
        """
        parts = {}
        for name, expected in (
            (LOCK_FILE, entry.lock_sha256),
            (PARAMS_FILE, entry.params_sha256),
        ):
            content = self.remote.read(self.remote.path(RUNS_FOLDER, entry.entry_id, name))
            if content is None or sha256_bytes(content) != expected:
                what = "is missing" if content is None else "is damaged"
                raise VersioningError(f"State {entry.entry_id} can't be used: its {name} {what}.")
            parts[name] = content
        return State(entry, parts[LOCK_FILE], parts[PARAMS_FILE])

    def latest(self) -> StateEntry | None:
        """Finds the newest state of which everything is on the remote, or else the newest."""
        newest = None
        for entry in self.newest_first():
            newest = newest or entry
            if not entry.missing:
                return entry
        return newest


def find_entry(entries: list[StateEntry], wanted: str) -> StateEntry | None:
    """Finds the state that `wanted` names, in full or by an unambiguous beginning.

    Args:
        entries: Newest first. Several states of one training are one answer: the newest of them.
        wanted: An entry id, our run id, an MLflow or Airflow run id, or a lock id.

    Raises:
        ConfigurationError: several ids begin so; names them.
    """
    for entry in entries:
        if wanted in entry.names():
            return entry
    matches: dict[str, StateEntry] = {}
    for entry in entries:
        for name in entry.names():
            if name.startswith(wanted):
                matches.setdefault(name, entry)
    states = {entry.entry_id: entry for entry in matches.values()}
    if len(states) > 1:
        raise ConfigurationError(
            f"{wanted!r} is the beginning of several ids: {', '.join(sorted(matches))}. "
            "Give more of it."
        )
    return next(iter(states.values()), None)
