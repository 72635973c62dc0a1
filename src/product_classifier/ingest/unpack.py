"""Archives from outside: looked over first, then unpacked under names of our own.

Refused are members that would land elsewhere (absolute, `..`, drive letters), links and other
special files, encrypted members, and archives that unpack to far more than they weigh (bombs).
What macOS adds is ignored.
"""

import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from product_classifier.core.errors import DataValidationError
from product_classifier.core.files import CHUNK_BYTES

_ENCRYPTED = 0x1
_SHOWN = 3


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may unpack to. Rakuten's photos: 2.5 GB in 98,728 members, uncompressed."""

    total_bytes: int = 40 * 2**30
    members: int = 2_000_000
    ratio: int = 200  # product texts full of HTML reach 10 to 30
    ratio_from_bytes: int = 2**20  # a small blank file may shrink to nearly nothing


def _is_ignored(name: str) -> bool:
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name in (".DS_Store", "Thumbs.db")


def _refusal(member: zipfile.ZipInfo, limits: ArchiveLimits) -> str | None:
    # zipfile itself cuts names at a NUL and turns the system's separator into "/".
    name = member.orig_filename.replace("\\", "/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    reason = None
    if name.startswith("/") or ".." in name.split("/") or name[1:2] == ":" or "\0" in name:
        reason = "points outside the archive"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "is a link or special file"
    elif member.flag_bits & _ENCRYPTED:
        reason = "is encrypted"
    elif member.file_size > limits.ratio_from_bytes and member.file_size > limits.ratio * max(
        member.compress_size, 1
    ):
        reason = f"unpacks from {member.compress_size} to {member.file_size} bytes"
    return reason


def open_archive(path: Path, limits: ArchiveLimits | None = None) -> zipfile.ZipFile:
    """Opens a zip after looking over its list of members.

    Raises:
        DataValidationError: no zip, or one that must not be unpacked; names the first members.
    """
    limits = limits or ArchiveLimits()
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataValidationError(f"{path.name} is no readable zip: {error}.") from error
    try:
        _check_members(path.name, archive.infolist(), limits)
    except DataValidationError:
        archive.close()
        raise
    return archive


def _check_members(name: str, members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    refused = [
        f"{member.orig_filename!r} {reason}"
        for member in members
        if (reason := _refusal(member, limits))
    ]
    if refused:
        more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise DataValidationError(f"{name} is refused: {'; '.join(refused[:_SHOWN])}{more}.")
    total = sum(member.file_size for member in members)
    if total > limits.total_bytes or len(members) > limits.members:
        raise DataValidationError(
            f"{name} is refused: it unpacks to {total} bytes in {len(members)} members. "
            f"At most {limits.total_bytes} bytes in {limits.members} members are allowed."
        )


def member_names(archive: zipfile.ZipFile) -> list[str]:
    """Lists the files of an archive, without folders and without what macOS adds."""
    return [
        member.filename
        for member in archive.infolist()
        if not member.is_dir() and not _is_ignored(member.filename)
    ]


def extract_member(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    """Unpacks one member under a name that the caller chose.

    Raises:
        DataValidationError: the member is damaged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        # zipfile reads at most the size that the list of members states, and that was checked.
        with archive.open(member) as source, target.open("wb") as file:
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
        raise DataValidationError(f"{member} can't be unpacked: {error}.") from error
    except Exception as error:  # zlib, bz2 and lzma raise errors of their own
        raise DataValidationError(
            f"{member} can't be unpacked: {type(error).__name__}: {error}."
        ) from error
