"""Outputs from the cache into the workspace: exactly the recorded bytes, never half a folder."""

import hashlib
import shutil
from pathlib import Path
from typing import BinaryIO

from product_classifier.core.errors import VersioningError
from product_classifier.core.files import CHUNK_BYTES, publish_directory, write_bytes_atomic
from product_classifier.versioning.lockfile import Entry
from product_classifier.versioning.remote import Objects, Remote, md5_file


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


class Materialiser:
    """Writes objects out of the cache, hashing each on the way; a damaged one is fetched again."""

    def __init__(self, objects: Objects, remote: Remote) -> None:
        self.objects, self.remote = objects, remote

    def fetch(self, entries: list[Entry]) -> int:
        """Brings all that these outputs need into the cache; gives how many were fetched."""
        fetched = self.remote.fetch(entry.md5 for entry in entries)
        return fetched + self.remote.fetch(self.objects.names(entries))

    def read(self, entry: Entry) -> bytes:
        """Reads a small file's content."""
        path = self.objects.repository.object_path(entry.md5)
        content = path.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != entry.md5:
            self._fetch_again(entry.md5)
            content = path.read_bytes()
        return content

    def fill(self, folder: Path, entry: Entry) -> None:
        """Writes a recorded folder's files into an empty one.

        Raises:
            VersioningError: an object is damaged here and can't be had from the remote.
        """
        for member in self.objects.listing(entry):
            target = folder / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write(target, member.md5)

    def _write(self, target: Path, md5: str) -> None:
        path = self.objects.repository.object_path(md5)
        with path.open("rb") as source, target.open("wb") as file:
            digest = _copy(source, file)
        if digest != md5:
            self._fetch_again(md5)
            shutil.copyfile(path, target)

    def _fetch_again(self, md5: str) -> None:
        path = self.objects.repository.object_path(md5)
        if md5_file(path) != md5:
            path.unlink()
            self.remote.fetch([md5])

    def place(self, root: Path, entry: Entry) -> None:
        """Puts one output at its place in a single step."""
        target = root / entry.path
        if entry.is_directory:
            with publish_directory(target) as staging:
                self.fill(staging, entry)
        else:
            write_bytes_atomic(target, self.read(entry))

    def differs(self, root: Path, entry: Entry) -> list[str]:
        """Hashes an output in the workspace; one sentence per file that is not as recorded."""
        target = root / entry.path
        if not entry.is_directory:
            if not target.is_file():
                return [f"{entry.path} is missing"]
            return [] if md5_file(target) == entry.md5 else [f"{entry.path} differs"]
        if not target.is_dir():
            return [f"{entry.path} is missing"]
        try:
            listed = {member.path: member.md5 for member in self.objects.listing(entry)}
        except VersioningError as error:
            return [str(error)]
        return [
            *_compare(target, entry.path, listed),
            *(
                f"{entry.path}/{name} is not recorded"
                for name in sorted(files_in(target) - set(listed))
            ),
        ]


def _compare(target: Path, name: str, listed: dict[str, str]) -> list[str]:
    found = []
    for path, md5 in sorted(listed.items()):
        file = target / path
        if not file.is_file():
            found.append(f"{name}/{path} is missing")
        elif md5_file(file) != md5:
            found.append(f"{name}/{path} differs")
    return found


def files_in(folder: Path) -> set[str]:
    """Lists a folder's files as DVC sees them: without byte code and what a killed writer left."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not (path.name.startswith(".") and path.name.endswith(".tmp"))
    }
