"""Downloaded files of one source, with a manifest of sizes and hashes checked by later runs.

`NAME` is a finished file, `NAME.part` an unfinished one, `NAME.part.json` what the server called
that version.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from product_classifier.core.files import read_json, sha256_file, write_json_atomic
from product_classifier.ingest.http_answers import Identity

logger = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """A finished download."""

    size: int
    sha256: str
    identity: Identity


class DownloadStore:
    """The folder of one source's downloads."""

    def __init__(self, folder: Path) -> None:
        """Opens a folder; it is created when the first file comes."""
        self.folder = folder
        self._manifest = folder / "manifest.json"

    def path(self, name: str) -> Path:
        """Gives the place of a finished file."""
        return self.folder / name

    def part(self, name: str) -> Path:
        """Gives the place of an unfinished file."""
        return self.folder / f"{name}.part"

    def _part_state(self, name: str) -> Path:
        return self.folder / f"{name}.part.json"

    def part_identity(self, name: str) -> Identity:
        """Gives the unfinished file's version; an empty one where nobody knows."""
        try:
            return Identity(**read_json(self._part_state(name)))
        except (OSError, ValueError, TypeError):
            return Identity()

    def start_part(self, name: str, identity: Identity) -> None:
        """Empties the unfinished file and notes its version, before its first byte arrives."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.drop_part(name)
        write_json_atomic(self._part_state(name), asdict(identity))
        self.part(name).touch()

    def drop_part(self, name: str) -> None:
        """Removes the unfinished file, its bytes before its name."""
        self.part(name).unlink(missing_ok=True)
        self._part_state(name).unlink(missing_ok=True)

    def finish_part(self, name: str, record: Record) -> None:
        """Makes the unfinished file the finished one.

        The manifest comes first: killed in between, the next run finds the complete part and need
        not fetch it again.
        """
        with self.part(name).open("rb") as file:
            os.fsync(file.fileno())
        self._write({**self._read(), name: asdict(record)})
        self.part(name).replace(self.path(name))
        self._part_state(name).unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Removes a file in every form."""
        self._write({known: entry for known, entry in self._read().items() if known != name})
        self.path(name).unlink(missing_ok=True)
        self.drop_part(name)

    def verified(self, name: str) -> Record | None:
        """Gives the finished file's record if its size and hash still are what they were."""
        entry = self._read().get(name)
        path = self.path(name)
        if entry is None or not path.is_file():
            return None
        record = Record(entry["size"], entry["sha256"], Identity(**entry["identity"]))
        if path.stat().st_size == record.size and sha256_file(path) == record.sha256:
            return record
        logger.warning("The download %s was changed or cut off on disk and is fetched again", name)
        path.unlink()
        return None

    def _read(self) -> dict[str, Any]:
        try:
            content = read_json(self._manifest)
            files = content["files"] if content.get("schema") == SCHEMA else {}
            return {
                name: entry
                for name, entry in files.items()
                if {"size", "sha256", "identity"} <= entry.keys()
            }
        except (OSError, json.JSONDecodeError, KeyError, AttributeError):
            return {}

    def _write(self, files: dict[str, Any]) -> None:
        write_json_atomic(self._manifest, {"schema": SCHEMA, "files": files})
