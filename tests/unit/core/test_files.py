import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from product_classifier.core import files
from product_classifier.core.files import (
    canonical_json,
    link_or_copy,
    publish_directory,
    recover_directory,
    sha256_bytes,
    sha256_file,
    symlink_atomic,
    write_json_atomic,
    write_text_atomic,
)


def test_hash_of_a_file_is_the_hash_of_its_bytes(tmp_path: Path) -> None:
    data = b"abc" * (1 << 20)
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == sha256_bytes(data)
    assert sha256_bytes(b"").startswith("e3b0c442")


def test_equal_values_have_equal_json() -> None:
    assert (
        canonical_json({"b": 1, "a": "é"})
        == canonical_json({"a": "é", "b": 1})
        == ('{"a":"é","b":1}'.encode())
    )


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text_atomic(tmp_path / "f", "old")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_text_atomic(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_mode_is_as_asked(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "secret", "x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_copy_where_no_link_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another device")

    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "folder" / "b")
    assert (tmp_path / "folder" / "b").read_text() == "x"
    assert not os.path.samefile(tmp_path / "a", tmp_path / "folder" / "b")


def test_symlink_is_replaced(tmp_path: Path) -> None:
    symlink_atomic("a", tmp_path / "link")
    symlink_atomic("b", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_published_directory_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "raw"
    for content in ("one", "two"):
        with publish_directory(target) as staging:
            (staging / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_error_while_publishing_keeps_the_old_directory(tmp_path: Path) -> None:
    with publish_directory(tmp_path / "raw") as staging:
        (staging / "old").touch()

    def fail() -> None:
        with publish_directory(tmp_path / "raw") as staging:
            (staging / "half").touch()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (it is our own)
        fail()
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_failing_swap_keeps_the_old_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with publish_directory(tmp_path / "raw") as staging:
        (staging / "old").touch()
    original = os.replace

    def refuse_new(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError("no")
        original(source, target)

    monkeypatch.setattr(files.os, "replace", refuse_new)

    def fail() -> None:
        with publish_directory(tmp_path / "raw"):
            pass

    with pytest.raises(OSError, match="no"):
        fail()
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["old"]


def test_recovery_of_nothing_does_nothing(tmp_path: Path) -> None:
    recover_directory(tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


_PUBLISHER = """
import itertools, sys
from pathlib import Path
from product_classifier.core.files import publish_directory

for count in itertools.count(int(sys.argv[2])):
    with publish_directory(Path(sys.argv[1])) as staging:
        for name in "abcdef":
            (staging / name).write_text(str(count))
    print(count, flush=True)
"""


def test_forty_kills_leave_one_whole_directory(tmp_path: Path) -> None:
    target = tmp_path / "raw"
    last = 0
    for kill in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, str(target), str(last + 1)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with process.stdout:
            for _ in range(2 + kill % 5):
                seen = int(process.stdout.readline())
            # Spends a while that differs from kill to kill, so that they land anywhere in a cycle.
            sum(range(kill * 500))
            process.kill()
            process.wait()
        recover_directory(target)
        content = {path.read_text() for path in target.iterdir()}
        assert len(content) == 1, "parts of two versions"
        assert len(list(target.iterdir())) == 6
        last = int(content.pop())
        assert last >= seen, "an older version than the one confirmed"
        assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_json_is_indented_sorted_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "f.json", {"b": 1, "a": "é"})
    text = (tmp_path / "f.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": "é",\n  "b": 1\n}\n'
    assert json.loads(text) == {"a": "é", "b": 1}
