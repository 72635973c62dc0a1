"""The probe: it changes when, and only when, the source does."""

import os
from pathlib import Path

import pytest
from file_server import FileServer, refuse

from product_classifier.core.errors import ConfigurationError, SourceError
from product_classifier.core.params import IngestParams, SampleParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.ingest.probe import write_probe


def settings(source: str) -> Settings:
    return Settings(data_source=source, download_timeout_seconds=2)


def probe(project: Workspace, source: str, params: IngestParams) -> bytes:
    return write_probe(project, settings(source), params).read_bytes()


def test_unchanged_source_leaves_the_file_untouched(
    project: Workspace, params: IngestParams
) -> None:
    path = write_probe(project, settings("sample"), params)
    before = path.stat()
    write_probe(project, settings("sample"), params)
    assert path == project.probes / "ingest.json"
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_sample_parameters_change_it(project: Workspace, params: IngestParams) -> None:
    other = params.model_copy(update={"sample": SampleParams(seed=99)})
    assert probe(project, "sample", params) != probe(project, "sample", other)


@pytest.mark.parametrize("change", ["table", "photo added", "photo removed", "photo touched"])
def test_folder_change_is_seen(
    project: Workspace, params: IngestParams, catalogue: Path, change: str
) -> None:
    before = probe(project, str(catalogue), params)
    assert probe(project, str(catalogue), params) == before
    photo = next((catalogue / "images" / "image_train").iterdir())
    if change == "table":
        with (catalogue / "X_train_update.csv").open("a") as file:
            file.write("\n")
    elif change == "photo added":
        photo.with_name("image_1_product_2.jpg").write_bytes(b"x")
    elif change == "photo removed":
        photo.unlink()
    else:
        os.utime(photo, ns=(1, 1))
    assert probe(project, str(catalogue), params) != before


def test_http_change_is_seen_without_a_download(
    project: Workspace, params: IngestParams, server: FileServer
) -> None:
    server.files["/c.zip"] = b"one"
    source = f"{server.url}/c.zip?token=hunter2"
    before = probe(project, source, params)
    assert b"hunter2" not in before
    assert probe(project, source.replace("hunter2", "another"), params) == before
    server.files["/c.zip"] = b"two"
    assert probe(project, source, params) != before
    assert {method for method, _, _ in server.requests} == {"HEAD"}


def test_last_known_state_is_taken_while_the_server_is_away(
    project: Workspace,
    params: IngestParams,
    server: FileServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.files["/c.zip"] = b"one"
    before = probe(project, f"{server.url}/c.zip", params)
    server.always["/c.zip"] = refuse(503)
    assert probe(project, f"{server.url}/c.zip", params) == before
    assert "last known state" in caplog.text


def test_unknown_server_that_is_away_is_an_error(project: Workspace, params: IngestParams) -> None:
    with pytest.raises(SourceError, match="can't be reached"):
        probe(project, "http://127.0.0.1:9/c.zip", params)


def test_unknown_source_is_a_configuration_error(project: Workspace, params: IngestParams) -> None:
    with pytest.raises(ConfigurationError):
        probe(project, "no such folder", params)
