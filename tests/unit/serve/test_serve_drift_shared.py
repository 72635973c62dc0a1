"""Drift where several processes serve one socket: the figures are those of all their windows."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from drifting import feed, make_rows, with_reference
from product_classifier.core.bundle import Manifest, read_manifest
from product_classifier.modeling.drift import FEATURES, Answered, measure
from product_classifier.serve.drift import DriftMonitor
from product_classifier.web import metric_registry
from product_classifier.web.metric_registry import MetricRegistry

ROWS = [make_rows(300, seed=seed, light=light) for seed, light in ((1, 1.0), (2, 0.4))]


@pytest.fixture
def manifest(make_bundle: Callable[..., Path], tmp_path: Path) -> Manifest:
    return with_reference(read_manifest(make_bundle(tmp_path / "bundle")), make_rows(500, seed=0))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shared metrics"
    path.mkdir()
    monkeypatch.setattr(metric_registry, "_shared_folder", lambda: path)
    return path


@pytest.fixture
def monitor(folder: Path, manifest: Manifest) -> DriftMonitor:
    monitor = DriftMonitor(MetricRegistry(), 500)
    monitor.use(manifest)
    return monitor


@pytest.fixture
def other(folder: Path, monitor: DriftMonitor, manifest: Manifest) -> Path:
    """The file of another process, which has answered the first rows; for its number that of our parent."""
    feed(monitor, ROWS[0])
    monitor.publish()
    path = folder / f"drift_{os.getppid()}.json"
    (folder / f"drift_{os.getpid()}.json").rename(path)
    monitor.use(manifest)
    return path


def of_reference(manifest: Manifest, rows: list[Answered]) -> object:
    assert manifest.drift is not None
    return measure(manifest.drift, rows)


def test_figures_are_those_of_all_windows(
    monitor: DriftMonitor, other: Path, manifest: Manifest
) -> None:
    feed(monitor, ROWS[1])
    found = monitor.figures()
    assert found == of_reference(manifest, [*ROWS[0], *ROWS[1]])
    assert monitor.status()["figures"]["products"] == 600
    assert "brightness" in found.drifted  # type: ignore[union-attr]


def test_a_scrape_tells_the_others(monitor: DriftMonitor, folder: Path) -> None:
    registry = MetricRegistry()
    second = DriftMonitor(registry, 500)
    second.use(monitor._manifest)  # type: ignore[arg-type]
    feed(second, ROWS[0][:7])
    list(registry.collect())
    told = json.loads((folder / f"drift_{os.getpid()}.json").read_text())
    assert told["window"]["products"] == 7
    assert [path.suffix for path in folder.glob("drift_*")] == [".json"]


def test_a_window_of_another_bundle_does_not_count(
    monitor: DriftMonitor, other: Path, manifest: Manifest
) -> None:
    monitor.use(manifest.model_copy(update={"content_id": "b" * 64}))
    feed(monitor, ROWS[1])
    assert monitor.figures() == of_reference(manifest, ROWS[1])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"window": {}}', '{"content_id": 1}'])
def test_what_can_not_be_read_does_not_count(
    monitor: DriftMonitor, other: Path, manifest: Manifest, text: str
) -> None:
    other.write_text(text)
    feed(monitor, ROWS[1])
    assert monitor.figures() == of_reference(manifest, ROWS[1])


@pytest.mark.parametrize(
    "part",
    [
        {"counts": {}},
        {"counts": {name: [1] for name in FEATURES}},
        {"counts": None},
        {"missing": []},
        {"products": "7"},
        {"confidence_sum": None},
        {"later": 1},
    ],
    ids=str,
)
def test_a_window_of_another_shape_does_not_count(
    monitor: DriftMonitor, other: Path, manifest: Manifest, part: dict[str, object]
) -> None:
    """As another version of this program would write it about the same bundle."""
    content = json.loads(other.read_text())
    other.write_text(json.dumps({**content, "window": {**content["window"], **part}}))
    feed(monitor, ROWS[1])
    assert monitor.figures() == of_reference(manifest, ROWS[1])


@pytest.mark.parametrize("name", ["drift_x.json", "drift_.json", "drift_7e3.json"])
def test_a_file_of_somebody_else_does_not_count_and_stays(
    monitor: DriftMonitor, other: Path, manifest: Manifest, name: str
) -> None:
    foreign = other.rename(other.with_name(name))
    feed(monitor, ROWS[1])
    monitor.publish()
    assert monitor.figures() == of_reference(manifest, ROWS[1])
    assert foreign.exists()


def test_the_window_of_a_dead_process_goes(
    monitor: DriftMonitor, other: Path, manifest: Manifest
) -> None:
    dead = other.rename(other.with_name("drift_4000000.json"))
    feed(monitor, ROWS[1])
    assert monitor.figures() == of_reference(manifest, ROWS[1])
    assert not dead.exists()


def test_a_window_of_an_earlier_process_with_this_number_goes(
    folder: Path, monitor: DriftMonitor
) -> None:
    own = folder / f"drift_{os.getpid()}.json"
    assert own.exists()
    DriftMonitor(MetricRegistry(), 500)
    assert not own.exists()


def test_a_folder_that_is_gone_fails_no_scrape(
    monitor: DriftMonitor, folder: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(folder)
    feed(monitor, ROWS[0])
    with caplog.at_level(logging.WARNING):
        monitor.publish()
        monitor.publish()
    assert caplog.text.count("are not told of this one's drift") == 1
    assert monitor.figures() == of_reference(manifest, ROWS[0])


def test_what_could_not_be_told_is_told_when_it_can_be(monitor: DriftMonitor, folder: Path) -> None:
    """Also where no product has come meanwhile."""
    own = folder / f"drift_{os.getpid()}.json"
    own.unlink()
    (own.with_suffix(".tmp")).mkdir()  # as a disk that is full
    feed(monitor, ROWS[0][:9])
    monitor.publish()
    assert not own.exists()
    own.with_suffix(".tmp").rmdir()
    monitor.publish()
    assert json.loads(own.read_text())["window"]["products"] == 9
