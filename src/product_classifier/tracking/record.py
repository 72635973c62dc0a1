"""The local record of a training run: what MLflow is told about it, on disk before it is asked.

A record is the folder `runs/<run_id>/`:

- `run.json`: name, status, times, tags, parameters; always replaced whole, as `lineage.json` and
  `tags.json`, what was learnt of the run's model later.
- `metrics.jsonl`: see `metrics_log`. `upload.json`: how far the upload has come, see `ledger`.
- `artifacts/`: files as they are to appear in MLflow; `children/`: nested runs, records themselves.

So a SIGKILL at any moment leaves a readable record. A run that was killed still says RUNNING; it
holds a lock on its folder only while its process lives, and the next start turns such a record
into KILLED.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from product_classifier.core.errors import TrackingError
from product_classifier.core.files import (
    link_or_copy,
    read_json,
    write_bytes_atomic,
    write_json_atomic,
)
from product_classifier.tracking.metrics_log import (
    METRICS_FILE,
    MetricEvent,
    append_metrics,
    read_metrics,
)
from product_classifier.tracking.run_id import iso_time, new_run_id, now_ms, try_lock
from product_classifier.tracking.scrub import scrub

logger = logging.getLogger(__name__)

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

SCHEMA_VERSION = 1
RUN_NAME = "Train_Concatenate_Model"  # as users' saved MLflow queries know a training
RUN_FILE = "run.json"
LINEAGE_FILE = "lineage.json"
TAGS_FILE = "tags.json"
ARTIFACTS = "artifacts"
CHILDREN = "children"
# A hard link would follow a later write in place; copying a small file costs nothing.
_LINK_FROM_BYTES = 1 << 20


class RunRecord:
    """One run's record: made by `start`, `child` or `open`, ended by `finish` or a `with` block."""

    def __init__(self, folder: Path, state: dict[str, Any], lock: int | None = None) -> None:
        self.folder = folder
        self._state = state
        self._lock = lock

    @classmethod
    def start(
        cls,
        runs_dir: Path,
        *,
        name: str = RUN_NAME,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> "RunRecord":
        """Begins a record, after marking those of killed processes.

        Args:
            runs_dir: The workspace's `runs` folder.
            name: Run name in MLflow.
            tags: Values become text. The user part of URLs is hidden, here and in `params`.
            params: Hyperparameters, nested as in `params.yaml`.
        """
        mark_killed(runs_dir)
        return cls._create(runs_dir / new_run_id(), name, tags, params)

    @classmethod
    def _create(
        cls,
        folder: Path,
        name: str,
        tags: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
    ) -> "RunRecord":
        folder.mkdir(parents=True)
        lock = try_lock(folder)
        started = now_ms()
        state: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "run_id": folder.name,
            "name": name,
            "status": "RUNNING",
            "started_at": iso_time(started),
            "started_at_ms": started,
            "ended_at_ms": None,
            "tags": {key: str(value) for key, value in scrub(dict(tags or {})).items()},
            "params": scrub(dict(params or {})),
        }
        record = cls(folder, state, lock)
        record._save()
        return record

    @classmethod
    def open(cls, folder: Path) -> "RunRecord":
        """Reads a record.

        Raises:
            TrackingError: there is none in `folder`, or another version of this program wrote it.
        """
        try:
            state = read_json(folder / RUN_FILE)
        except (OSError, ValueError) as error:
            raise TrackingError(f"No readable run record in {folder}: {error}") from error
        version = state.get("schema_version") if isinstance(state, dict) else None
        if version != SCHEMA_VERSION:
            raise TrackingError(
                f"{folder / RUN_FILE} has schema version {version!r}. Expected {SCHEMA_VERSION}."
            )
        return cls(folder, state)

    def __enter__(self) -> "RunRecord":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Finishes the run: FINISHED, KILLED by a signal (SystemExit, Ctrl-C), or FAILED."""
        if self.status != "RUNNING":
            return
        if kind is None:
            self.finish("FINISHED")
        else:
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED")

    @property
    def run_id(self) -> str:
        """Our own id, also the tag `product_classifier.run_id` in MLflow."""
        return str(self._state["run_id"])

    @property
    def name(self) -> str:
        """Run name in MLflow."""
        return str(self._state["name"])

    @property
    def status(self) -> Status:
        """Where the run stands; RUNNING also while nobody has noticed that it was killed."""
        status: Status = self._state["status"]
        return status

    @property
    def started_at_ms(self) -> int:
        """Start, Unix time in milliseconds."""
        return int(self._state["started_at_ms"])

    @property
    def ended_at_ms(self) -> int | None:
        """End, Unix time in milliseconds; None while it runs."""
        return self._state["ended_at_ms"]  # type: ignore[no-any-return]

    @property
    def tags(self) -> dict[str, str]:
        """Tags, without those that the upload adds."""
        return {**self._state["tags"], **self._read_or_empty(TAGS_FILE)}

    @property
    def params(self) -> dict[str, Any]:
        """Hyperparameters, nested."""
        return dict(self._state["params"])

    @property
    def lineage(self) -> dict[str, Any]:
        """What `attach_lineage` added."""
        return self._read_or_empty(LINEAGE_FILE)

    def _read_or_empty(self, name: str) -> dict[str, Any]:
        try:
            return dict(read_json(self.folder / name))
        except FileNotFoundError:
            return {}

    @property
    def artifacts(self) -> Path:
        """Folder of the files to appear in MLflow."""
        return self.folder / ARTIFACTS

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Appends metrics, in one write.

        Args:
            values: Metric name → value; anything that `float` takes.
            step: Epoch, where there are several values of one metric.
        """
        append_metrics(self.folder / METRICS_FILE, values, step)

    def metrics(self) -> list[MetricEvent]:
        """Reads all metrics in the order in which they were logged."""
        return read_metrics(self.folder / METRICS_FILE)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keeps a file, or everything below a folder, as it is now.

        Args:
            path: File or folder. A large file is hard-linked, so it must not be written in place
                later: all our artefacts are replaced by renaming.
            folder: Where it appears in MLflow, as `plots` or `bundle`; "" is the root.
        """
        if path.is_dir():
            for file in sorted(item for item in path.rglob("*") if item.is_file()):
                parent = (Path(folder) / file.relative_to(path)).parent
                self.log_artifact(file, "" if parent == Path() else parent.as_posix())
            return
        target = self.artifacts / folder / path.name
        if path.stat().st_size < _LINK_FROM_BYTES:
            write_bytes_atomic(target, path.read_bytes())
            return
        temporary = target.with_name(f".{target.name}.tmp")
        temporary.unlink(missing_ok=True)
        link_or_copy(path.resolve(), temporary)
        os.replace(temporary, target)

    def artifact_files(self) -> dict[str, Path]:
        """Lists the kept files by their path in MLflow."""
        return {
            path.relative_to(self.artifacts).as_posix(): path
            for path in sorted(self.artifacts.rglob("*"))
            if path.is_file() and not path.name.endswith(".tmp")
        }

    def child(
        self,
        name: str,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> "RunRecord":
        """Begins a nested run, as one ablation."""
        return self._create(self.folder / CHILDREN / new_run_id(), name, tags, params)

    def children(self) -> list["RunRecord"]:
        """Opens the nested runs, oldest first."""
        return list_records(self.folder / CHILDREN)

    def finish(self, status: Status = "FINISHED") -> None:
        """Ends the run and its nested runs that still go on."""
        for child in self.children():
            if child.status == "RUNNING":
                child.finish(status)
        self._end(status, now_ms())

    def _end(self, status: Status, at_ms: int) -> None:
        self._state.update(status=status, ended_at_ms=at_ms, ended_at=iso_time(at_ms))
        self._save()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def add_lineage(self, lineage: Mapping[str, Any]) -> None:
        """Adds to the lineage tuple."""
        # A file of its own: the training may still write run.json.
        write_json_atomic(self.folder / LINEAGE_FILE, {**self.lineage, **scrub(dict(lineage))})

    def add_tags(self, tags: Mapping[str, Any]) -> None:
        """Adds to the tags, whether the run has ended or not; values become text."""
        new = {key: str(value) for key, value in scrub(dict(tags)).items()}
        write_json_atomic(self.folder / TAGS_FILE, {**self._read_or_empty(TAGS_FILE), **new})

    def _save(self) -> None:
        write_json_atomic(self.folder / RUN_FILE, self._state)


def list_records(runs_dir: Path) -> list[RunRecord]:
    """Opens all records of a folder, oldest first; warns of one that can't be read."""
    records = []
    for path in sorted(runs_dir.glob(f"*/{RUN_FILE}")):
        try:
            records.append(RunRecord.open(path.parent))
        except TrackingError as error:
            logger.warning("%s", error)
    return sorted(records, key=lambda record: record.started_at_ms)


def mark_killed(runs_dir: Path) -> list[RunRecord]:
    """Sets the records whose process is gone from RUNNING to KILLED, ended when they last wrote."""
    killed = []
    for record in _running(runs_dir):
        lock = try_lock(record.folder)
        if lock is None:
            continue
        for item in (*record.children(), record):
            if item.status == "RUNNING":
                item._end("KILLED", _last_write_ms(item))
        os.close(lock)
        killed.append(record)
        logger.warning("Run %s was killed before its end.", record.run_id)
    return killed


def _running(runs_dir: Path) -> Iterator[RunRecord]:
    return (record for record in list_records(runs_dir) if record.status == "RUNNING")


def _last_write_ms(record: RunRecord) -> int:
    files = [record.folder / RUN_FILE, record.folder / METRICS_FILE]
    return max(file.stat().st_mtime_ns // 1_000_000 for file in files if file.exists())
