"""A catalogue in a bucket, against a local S3 server."""

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from product_classifier.core.errors import SourceError
from product_classifier.core.params import IngestParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.ingest.ingest import ingest
from product_classifier.ingest.probe import write_probe

# moto and its web server raise deprecation warnings of their own.
pytestmark = pytest.mark.filterwarnings("ignore")

KEYS = {"aws_access_key_id": "user", "aws_secret_access_key": "hunter2"}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, catalogue: Path) -> Any:
    with zipfile.ZipFile(catalogue / "images.zip", "w") as archive:
        for path in sorted((catalogue / "images").rglob("*.jpg")):
            archive.write(path, path.relative_to(catalogue).as_posix())
    shutil.rmtree(catalogue / "images")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **KEYS)
    client.create_bucket(Bucket="shop")
    for path in catalogue.iterdir():
        client.upload_file(str(path), "shop", f"data/2026/{path.name}")
    return client


def settings(endpoint: str) -> Settings:
    return Settings(dvc_s3_endpoint_url=endpoint, download_attempts=2, **KEYS)


def test_prefix_is_imported_and_leaves_no_secret(
    project: Workspace, params: IngestParams, endpoint: str, bucket: Any
) -> None:
    result = ingest(project, settings(endpoint), params, source="s3://shop/data/2026")
    assert (result.labelled, result.unlabelled) == (270, 27)
    kept = "".join(p.read_text(errors="replace") for p in project.root.rglob("*.json"))
    assert "Signature" not in kept
    assert "hunter2" not in kept


def test_optional_files_may_be_absent_and_required_ones_not(
    project: Workspace, params: IngestParams, endpoint: str, bucket: Any
) -> None:
    bucket.delete_object(Bucket="shop", Key="data/2026/X_test_update.csv")
    result = ingest(project, settings(endpoint), params, source="s3://shop/data/2026/")
    assert result.unlabelled == 0
    bucket.delete_object(Bucket="shop", Key="data/2026/images.zip")
    with pytest.raises(SourceError, match="images.zip: the server answers 404"):
        ingest(project, settings(endpoint), params, source="s3://shop/data/2026")


def test_probe_follows_the_objects(
    project: Workspace, params: IngestParams, endpoint: str, bucket: Any
) -> None:
    where = settings(endpoint).model_copy(update={"data_source": "s3://shop/data/2026"})
    before = write_probe(project, where, params).read_bytes()
    assert write_probe(project, where, params).read_bytes() == before
    bucket.put_object(Bucket="shop", Key="data/2026/X_test_update.csv", Body=b"other")
    assert write_probe(project, where, params).read_bytes() != before


def test_absent_server_is_an_error_until_something_was_fetched(
    project: Workspace, params: IngestParams, endpoint: str, bucket: Any
) -> None:
    away = settings("http://127.0.0.1:9")
    with pytest.raises(SourceError, match="can't be reached"):
        ingest(project, away, params, source="s3://shop/data/2026")
    ingest(project, settings(endpoint), params, source="s3://shop/data/2026")
    assert ingest(project, away, params, source="s3://shop/data/2026").labelled == 270
