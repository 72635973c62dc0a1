import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from product_classifier.core.textfile import read_metrics, try_write_metrics, write_metrics


def example(value: float = 2) -> CollectorRegistry:
    registry = CollectorRegistry()
    counter = Counter("runs", "Runs.", ["state"], registry=registry)
    counter.labels('odd "state"\n').inc(value)
    Gauge("age_seconds", "Age.", registry=registry).set(0.5)
    Gauge("none", "Nothing.", ["of"], registry=registry)
    return registry


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    write_metrics(tmp_path / "new" / "folder", "a.b-c_1", example())
    assert read_metrics(tmp_path / "new" / "folder", "a.b-c_1") == {
        ("runs_total", frozenset({("state", 'odd "state"\n')})): 2,
        ("age_seconds", frozenset()): 0.5,
    }


def test_a_write_replaces_the_whole_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_metrics(tmp_path, "stage", example())
    registry = CollectorRegistry()
    Gauge("other", "Other.", registry=registry).set(1)
    write_metrics(tmp_path, "stage", registry)
    assert read_metrics(tmp_path, "stage") == {("other", frozenset()): 1}
    assert [path.name for path in tmp_path.iterdir()] == ["stage.prom"]


def test_neither_times_of_creation_nor_empty_metrics_are_written(tmp_path: Path) -> None:
    write_metrics(tmp_path, "stage", example())
    text = (tmp_path / "stage.prom").read_text()
    assert "created" not in text
    assert "none" not in text


def test_an_exporter_that_is_another_user_reads_it_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        write_metrics(tmp_path, "stage", example())
        write_metrics(tmp_path, "stage", example(3))
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "stage.prom").stat().st_mode) == 0o644


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "Upper", "a b"])
def test_a_name_that_is_no_file_here_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="Expected a name"):
        write_metrics(tmp_path, name, example())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "half {a", "name one\n"])
def test_what_can_not_be_read_is_nothing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "stage.prom").write_text(content)
    assert read_metrics(tmp_path, "stage") == {}


def test_a_folder_that_can_not_be_written_to_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert not try_write_metrics(tmp_path / "file" / "folder", "stage", example())
    assert "stage were not written" in caplog.text
    assert try_write_metrics(tmp_path, "stage", example())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_reads_it(tmp_path: Path) -> None:
    write_metrics(tmp_path, "stage", example())
    text = (tmp_path / "stage.prom").read_bytes()
    subprocess.run(["promtool", "check", "metrics"], input=text, check=True, capture_output=True)
