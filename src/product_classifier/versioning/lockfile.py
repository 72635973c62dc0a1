"""`dvc.lock` as data: what each stage read and wrote when it was last recorded, by hash."""

from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from product_classifier.core.errors import VersioningError
from product_classifier.core.files import canonical_json, sha256_bytes

LOCK_FILE = "dvc.lock"
STAGES = ("ingest", "train", "gate", "predict")
_DIRECTORY_SUFFIX = ".dir"


@dataclass(frozen=True, order=True)
class Entry:
    """A dependency or output of a stage."""

    path: str  # relative to the workspace, forward slashes
    md5: str  # DVC's object name; ends in ".dir" for a folder

    @property
    def is_directory(self) -> bool:
        """Says whether the hash names a listing instead of a content."""
        return self.md5.endswith(_DIRECTORY_SUFFIX)


@dataclass(frozen=True)
class StageLock:
    """One stage as it was recorded."""

    command: str
    deps: tuple[Entry, ...]
    outs: tuple[Entry, ...]
    params: dict[str, Any]  # section of params.yaml → its values


@dataclass(frozen=True)
class LockFile:
    """A whole `dvc.lock`."""

    content: bytes
    stages: dict[str, StageLock]

    @property
    def lock_id(self) -> str:
        """Names this state by its content: the first 16 hex digits of the file's SHA-256."""
        return sha256_bytes(self.content)[:16]

    @property
    def params_hash(self) -> str:
        """Hashes all recorded parameters; 64 hex digits."""
        return sha256_bytes(canonical_json({name: s.params for name, s in self.stages.items()}))

    def out(self, path: str) -> Entry | None:
        """Finds an output by its path."""
        return next((e for s in self.stages.values() for e in s.outs if e.path == path), None)

    def outs(self) -> list[Entry]:
        """Lists the outputs of all stages."""
        return sorted(entry for stage in self.stages.values() for entry in stage.outs)


def parse_yaml(content: bytes) -> Any:
    """Reads YAML as DVC does, version 1.2: there 1e-05, as DVC writes it, is a number.

    Raises:
        YAMLError: it is none.
    """
    return YAML(typ="safe", pure=True).load(content)


def _entries(items: list[dict[str, Any]] | None) -> tuple[Entry, ...]:
    return tuple(Entry(item["path"], item["md5"]) for item in items or () if "md5" in item)


def parse_lock(content: bytes, origin: str = LOCK_FILE) -> LockFile:
    """Reads the text of a `dvc.lock`; an empty one is a state in which no stage has run.

    Raises:
        VersioningError: it is not YAML or not of DVC's schema.
    """
    try:
        document = parse_yaml(content) or {}
        stages = {
            name: StageLock(
                command=str(stage.get("cmd", "")),
                deps=_entries(stage.get("deps")),
                outs=_entries(stage.get("outs")),
                params=(stage.get("params") or {}).get("params.yaml", {}),
            )
            for name, stage in (document.get("stages") or {}).items()
        }
    except (YAMLError, AttributeError, KeyError, TypeError) as error:
        raise VersioningError(f"{origin} is not a lock file of DVC: {error}") from error
    return LockFile(content, stages)
