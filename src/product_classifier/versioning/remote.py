"""What the DVC remote really holds: `dvc push` and `dvc status -c` only believe its listings."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from product_classifier.core.errors import VersioningError
from product_classifier.core.files import CHUNK_BYTES, write_bytes_atomic
from product_classifier.versioning.deadline import within
from product_classifier.versioning.lockfile import Entry
from product_classifier.versioning.repository import Repository

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_SECONDS = 20.0
_TRANSFERS = 8  # at once
_CACHE_MODE = 0o444  # as DVC protects its cache


def md5_file(path: Path) -> str:
    """Hashes a file as DVC names it; lower-case hex."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def parse_listing(content: bytes, name: str) -> list[Entry]:
    """Reads a `.dir` object: the files of a folder, by path inside it.

    Raises:
        VersioningError: it is not such a listing.
    """
    try:
        entries = [Entry(item["relpath"], item["md5"]) for item in json.loads(content)]
    except (ValueError, KeyError, TypeError) as error:
        raise VersioningError(f"Object {name} is no listing of a folder: {error}") from error
    for entry in entries:
        if Path(entry.path).is_absolute() or ".." in Path(entry.path).parts:
            raise VersioningError(f"Object {name} lists a file outside its folder: {entry.path}.")
    return sorted(entries)


class Objects:
    """Objects by hash: in the local cache, and on the remote."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def in_cache(self, md5: str) -> bool:
        """Says whether the local cache holds the object."""
        return self.repository.object_path(md5).is_file()

    def listing(self, entry: Entry) -> list[Entry]:
        """Lists a folder's files from its listing in the cache; a file is its own only member."""
        if not entry.is_directory:
            return [Entry("", entry.md5)]
        path = self.repository.object_path(entry.md5)
        try:
            return parse_listing(path.read_bytes(), entry.md5)
        except FileNotFoundError:
            raise VersioningError(
                f"The cache lacks {entry.md5}, the listing of {entry.path}."
            ) from None

    def names(self, entries: Iterable[Entry]) -> list[str]:
        """Names every object that these outputs need, listings last: no list before its files."""
        files: dict[str, None] = {}
        listings: dict[str, None] = {}
        for entry in entries:
            files.update(dict.fromkeys(member.md5 for member in self.listing(entry)))
            if entry.is_directory:
                listings[entry.md5] = None
        return [*files, *listings]


class Remote:
    """The remote storage, through DVC's own file system classes: a folder and S3 behave alike."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    @cached_property
    def _remote(self) -> Any:
        return self.repository.remote()

    @property
    def _fs(self) -> Any:
        return self._remote.fs

    @property
    def is_folder(self) -> bool:
        """Says whether the remote is a local folder."""
        return bool(self._fs.protocol == "local")

    def path(self, *parts: str) -> str:
        """Gives the place of something on the remote."""
        return str(self._fs.join(self._remote.path, *parts))

    def object_path(self, md5: str) -> str:
        """Gives the place of an object on the remote."""
        return str(self._remote.odb.oid_to_path(md5))

    def check_reachable(self) -> None:
        """Asks the remote for its names, before anything long begins.

        Raises:
            VersioningError: it refuses, is away, or does not answer within 20 s.
        """
        with self.repository.transfer_errors("Asking the remote"):
            if self.is_folder:
                Path(self._remote.path).mkdir(parents=True, exist_ok=True)
                return
            within(ANSWER_TIMEOUT_SECONDS, f"An answer of {self.repository.address}", self._list)

    def _list(self) -> None:
        try:
            self._fs.ls(self._remote.path)
        except FileNotFoundError:
            bucket = self._fs.parts(self._remote.path)[0]
            self._fs.ls(bucket)  # an empty prefix is no fault, a missing bucket is

    def missing(self, names: Iterable[str]) -> list[str]:
        """Finds the objects that the remote lacks, by looking for each one."""
        wanted = list(names)
        with self.repository.transfer_errors("Checking the remote"):
            self._forget_listings()
            there = set(self._fs_exists([self.object_path(name) for name in wanted]))
        return [name for name in wanted if self.object_path(name) not in there]

    def _forget_listings(self) -> None:
        # s3fs answers from an earlier listing if it is let.
        self._fs.fs.invalidate_cache()

    def _fs_exists(self, paths: list[str]) -> list[str]:
        found: list[bool] = self._fs.exists(paths, batch_size=_TRANSFERS) if paths else []
        return [path for path, there in zip(paths, found, strict=True) if there]

    def upload(self, names: Iterable[str]) -> None:
        """Sends objects from the cache, each complete or not at all, listings last.

        Raises:
            VersioningError: the cache lacks one, or the remote refuses.
        """
        ordered = list(names)
        for wanted in (False, True):
            batch = [name for name in ordered if name.endswith(".dir") == wanted]
            with self.repository.transfer_errors("Sending objects"):
                self._each(self._upload_one, batch)

    def _upload_one(self, name: str) -> None:
        source = self.repository.object_path(name)
        if not source.is_file():
            raise VersioningError(f"Neither the remote nor the cache has object {name}.")
        self._fs.put_file(str(source), self.object_path(name))

    def fetch(self, names: Iterable[str]) -> int:
        """Brings objects into the cache after checking their content; gives how many were fetched.

        Raises:
            VersioningError: the remote lacks one, or one's content is not what its name says.
        """
        wanted = [n for n in dict.fromkeys(names) if not self.repository.object_path(n).is_file()]
        if wanted:
            self._drop_leftovers()
        with self.repository.transfer_errors("Fetching objects"):
            self._each(self._fetch_one, wanted)
        return len(wanted)

    def _drop_leftovers(self) -> None:
        # Of a killed fetch; nobody else writes here while we hold the lock.
        cache = self.repository.object_path("0" * 32).parents[1]
        for leftover in cache.glob("??/.*.tmp"):
            leftover.unlink()

    def _fetch_one(self, name: str) -> None:
        target = self.repository.object_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid4().hex}.tmp")
        try:
            self._download(name, temporary)
            if (digest := md5_file(temporary)) != name.removesuffix(".dir"):
                raise VersioningError(
                    f"Object {name} is damaged on the remote: its content has the hash {digest}."
                )
            temporary.chmod(_CACHE_MODE)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _download(self, name: str, target: Path) -> None:
        try:
            self._fs.get_file(self.object_path(name), str(target))
        except FileNotFoundError:
            raise VersioningError(f"The remote lacks object {name}.") from None

    def damaged(self, names: Iterable[str], scratch: Path) -> dict[str, str]:
        """Downloads objects and compares content with name; gives what is wrong, by object."""
        wrong: dict[str, str] = {}

        def _check(name: str) -> None:
            temporary = scratch / uuid4().hex
            try:
                self._fs.get_file(self.object_path(name), str(temporary))
                if (digest := md5_file(temporary)) != name.removesuffix(".dir"):
                    wrong[name] = f"content has the hash {digest}"
            except FileNotFoundError:
                wrong[name] = "is missing"
            finally:
                temporary.unlink(missing_ok=True)

        scratch.mkdir(parents=True, exist_ok=True)
        with self.repository.transfer_errors("Reading objects back"):
            self._each(_check, names)
        return wrong

    @staticmethod
    def _each(action: Callable[[str], None], names: Iterable[str]) -> None:
        with ThreadPoolExecutor(max_workers=_TRANSFERS) as pool:
            for future in [pool.submit(action, name) for name in names]:
                future.result()

    def write(self, path: str, content: bytes) -> None:
        """Writes a small file, complete or not at all."""
        with self.repository.transfer_errors("Writing to the remote"):
            if self.is_folder:
                write_bytes_atomic(Path(path), content)
            else:
                self._fs.pipe_file(path, content)

    def read(self, path: str) -> bytes | None:
        """Reads a small file, or gives None where there is none."""
        with self.repository.transfer_errors("Reading from the remote"):
            try:
                return bytes(self._fs.cat_file(path))
            except FileNotFoundError:
                return None

    def names_in(self, path: str) -> list[str]:
        """Lists what a folder on the remote holds, sorted; nothing if there is no such folder."""
        with self.repository.transfer_errors("Listing the remote"):
            self._forget_listings()
            try:
                return sorted(str(self._fs.name(item)) for item in self._fs.ls(path, detail=False))
            except FileNotFoundError:
                return []
