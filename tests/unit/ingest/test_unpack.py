"""Archives from outside that try to harm."""

import stat
import zipfile
from pathlib import Path

import pytest

from product_classifier.core.errors import DataValidationError
from product_classifier.ingest.unpack import (
    ArchiveLimits,
    extract_member,
    member_names,
    open_archive,
)


def make_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name",
    ["../evil.csv", "/etc/evil", "a/../../evil", "C:\\evil", "..\\evil", "c:/evil"],
)
def test_member_outside_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    archive = make_zip(tmp_path / "a.zip", ("good.csv", b"x"), (name, b"x"))
    with pytest.raises(DataValidationError, match="points outside"):
        open_archive(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_link_or_special_file_is_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("images/a.jpg")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    with pytest.raises(DataValidationError, match="link or special file"):
        open_archive(make_zip(tmp_path / "a.zip", (info, b"/etc/passwd")))


def test_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("a.csv", b"\0" * 5_000_000))
    with pytest.raises(DataValidationError, match="unpacks from .* to 5000000 bytes"):
        open_archive(archive)


def test_bomb_is_refused_by_its_total(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", *((f"{i}.csv", bytes(range(256))) for i in range(10)))
    with pytest.raises(DataValidationError, match="2560 bytes in 10 members"):
        open_archive(archive, ArchiveLimits(total_bytes=2000))


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", *((f"{i}.csv", b"") for i in range(10)))
    with pytest.raises(DataValidationError, match="10 members"):
        open_archive(archive, ArchiveLimits(members=9))


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("a.csv", b"x"))
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # flag in the central directory
    archive.write_bytes(bytes(content))
    with pytest.raises(DataValidationError, match="encrypted"):
        open_archive(archive)


def test_what_macos_adds_is_ignored(tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "a.zip",
        ("a.csv", b"x"),
        ("__MACOSX/._a.csv", b"x"),
        ("b/.DS_Store", b"x"),
        ("b/", b""),
    )
    with open_archive(archive) as opened:
        assert member_names(opened) == ["a.csv"]


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 broken"])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataValidationError, match="no readable zip"):
        open_archive(tmp_path / "a.zip")


def test_damaged_member_is_named(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("a.csv", b"some text " * 100))
    content = bytearray(archive.read_bytes())
    content[45] ^= 0xFF
    archive.write_bytes(bytes(content))
    with open_archive(archive) as opened, pytest.raises(DataValidationError, match="a.csv can't"):
        extract_member(opened, "a.csv", tmp_path / "out" / "a.csv")
