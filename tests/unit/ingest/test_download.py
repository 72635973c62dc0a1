"""Downloads against a real server that cuts, lies, refuses, drips and changes its mind."""

import json
import time
from pathlib import Path

import pytest
from file_server import FileServer, drip_headers, refuse, serve

from product_classifier.core.errors import SourceError
from product_classifier.core.files import sha256_bytes
from product_classifier.ingest.download import Downloader, DownloadPolicy
from product_classifier.ingest.download_store import DownloadStore

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
PATH = "/data/images.zip"
QUICK = DownloadPolicy(
    window_seconds=5,
    window_bytes=10_000,
    attempts=3,
    backoff_seconds=0.001,
    backoff_cap_seconds=0.01,
)


@pytest.fixture
def store(tmp_path: Path) -> DownloadStore:
    return DownloadStore(tmp_path / "downloads")


@pytest.fixture
def files(server: FileServer) -> FileServer:
    server.files[PATH] = CONTENT
    return server


def fetch(files: FileServer, store: DownloadStore, policy: DownloadPolicy = QUICK) -> Path | None:
    return Downloader(store, policy).fetch("images.zip", files.url + PATH)


def assert_complete(store: DownloadStore, content: bytes = CONTENT) -> None:
    assert store.path("images.zip").read_bytes() == content
    assert not store.part("images.zip").exists()
    record = json.loads((store.folder / "manifest.json").read_text())["files"]["images.zip"]
    assert (record["size"], record["sha256"]) == (len(content), sha256_bytes(content))


def test_download_notes_size_and_hash(files: FileServer, store: DownloadStore) -> None:
    assert fetch(files, store) == store.path("images.zip")
    assert_complete(store)


def test_cut_download_resumes_where_it_stopped(files: FileServer, store: DownloadStore) -> None:
    files.script[PATH] = [serve(cut_after=200_000)]
    fetch(files, store)
    assert_complete(store)
    first, second = files.gets(PATH)
    assert "range" not in first
    assert second["range"] == "bytes=200000-"
    assert second["if-range"] == files.etag(PATH)


def test_progress_between_cuts_resets_the_attempts(files: FileServer, store: DownloadStore) -> None:
    files.script[PATH] = [serve(cut_after=40_000) for _ in range(12)]
    fetch(files, store)
    assert_complete(store)
    assert len(files.gets(PATH)) == 13


def test_cuts_without_progress_end_in_an_error(files: FileServer, store: DownloadStore) -> None:
    files.always[PATH] = serve(cut_after=0)
    with pytest.raises(SourceError, match="3 attempts failed"):
        fetch(files, store)
    assert len(files.gets(PATH)) == 3


def test_length_that_is_never_delivered_ends_in_an_error(
    files: FileServer, store: DownloadStore
) -> None:
    files.always[PATH] = serve(length_off_by=100, use_range=False)
    with pytest.raises(SourceError, match="can't be fetched"):
        fetch(files, store)
    assert not store.path("images.zip").exists()


def test_length_lie_is_survived_once_the_server_tells_the_truth(
    files: FileServer, store: DownloadStore
) -> None:
    files.script[PATH] = [serve(length_off_by=100)]
    fetch(files, store)
    assert_complete(store)


def test_complete_part_of_a_killed_run_is_taken_on_416(
    files: FileServer, store: DownloadStore
) -> None:
    fetch(files, store)
    store.path("images.zip").rename(store.part("images.zip"))  # killed before the last rename
    (store.folder / "images.zip.part.json").write_text(
        json.dumps({"etag": files.etag(PATH), "last_modified": None})
    )
    files.requests.clear()
    fetch(files, store)
    assert_complete(store)
    (request,) = files.gets(PATH)
    assert request["range"] == f"bytes={len(CONTENT)}-"


def test_part_longer_than_the_file_is_thrown_away_on_416(
    files: FileServer, store: DownloadStore
) -> None:
    store.folder.mkdir()
    store.part("images.zip").write_bytes(b"x" * (len(CONTENT) + 5))
    (store.folder / "images.zip.part.json").write_text(
        json.dumps({"etag": files.etag(PATH), "last_modified": None})
    )
    fetch(files, store)
    assert_complete(store)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_refusal_is_tried_again(
    files: FileServer, store: DownloadStore, status: int
) -> None:
    files.script[PATH] = [refuse(status)]
    fetch(files, store)
    assert_complete(store)


def test_retry_after_is_honoured_up_to_its_cap(files: FileServer, store: DownloadStore) -> None:
    files.script[PATH] = [refuse(429, Retry_After="3600")]
    policy = DownloadPolicy(attempts=2, backoff_seconds=0, retry_after_cap_seconds=0.3)
    started = time.monotonic()
    fetch(files, store, policy)
    assert 0.3 <= time.monotonic() - started < 60  # not the hour that is asked for
    assert_complete(store)


def test_retry_after_may_be_a_date(files: FileServer, store: DownloadStore) -> None:
    files.script[PATH] = [refuse(503, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT")]
    policy = DownloadPolicy(attempts=2, backoff_seconds=0, retry_after_cap_seconds=0.3)
    started = time.monotonic()
    fetch(files, store, policy)
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("behaviour", [serve(drip=True), drip_headers], ids=["body", "headers"])
def test_dripping_server_is_given_up(
    files: FileServer, store: DownloadStore, behaviour: object
) -> None:
    files.always[PATH] = behaviour  # type: ignore[assignment]
    policy = DownloadPolicy(window_seconds=0.3, attempts=2, backoff_seconds=0)
    started = time.monotonic()
    with pytest.raises(SourceError, match="less than 65536 bytes in 0.3 s arrived"):
        fetch(files, store, policy)
    assert time.monotonic() - started < 60  # byte for byte it would take hours


def test_new_version_during_a_transfer_is_fetched_whole(
    files: FileServer, store: DownloadStore
) -> None:
    newer = CONTENT[::-1]

    def cut_and_change(handler: object) -> None:
        serve(cut_after=100_000)(handler)  # type: ignore[arg-type]
        files.files[PATH] = newer

    files.script[PATH] = [cut_and_change]
    fetch(files, store)
    assert_complete(store, newer)


def test_server_that_ignores_if_range_does_not_mix_two_versions(
    files: FileServer, store: DownloadStore
) -> None:
    newer = CONTENT[::-1]

    def cut_and_change(handler: object) -> None:
        serve(cut_after=100_000)(handler)  # type: ignore[arg-type]
        files.files[PATH] = newer

    files.script[PATH] = [cut_and_change, serve(use_validators=False)]
    fetch(files, store)
    assert_complete(store, newer)


def test_server_without_ranges_is_asked_for_everything(
    files: FileServer, store: DownloadStore
) -> None:
    files.script[PATH] = [serve(cut_after=100_000)]
    files.always[PATH] = serve(use_range=False)
    fetch(files, store)
    assert_complete(store)


def test_part_without_validator_is_not_continued(files: FileServer, store: DownloadStore) -> None:
    files.script[PATH] = [serve(cut_after=100_000, without_etag=True)]
    files.always[PATH] = serve(without_etag=True)
    fetch(files, store)
    assert_complete(store)
    assert "range" not in files.gets(PATH)[1]


def test_unchanged_file_is_not_sent_again(files: FileServer, store: DownloadStore) -> None:
    fetch(files, store)
    fetch(files, store)
    assert_complete(store)
    assert files.gets(PATH)[1]["if-none-match"] == files.etag(PATH)


def test_changed_file_is_fetched_again(files: FileServer, store: DownloadStore) -> None:
    fetch(files, store)
    files.files[PATH] = b"new" * 1000
    fetch(files, store)
    assert_complete(store, b"new" * 1000)


@pytest.mark.parametrize("damage", [CONTENT[:-1], b"\0" + CONTENT[1:]], ids=["cut", "changed"])
def test_copy_damaged_on_disk_is_fetched_again(
    files: FileServer, store: DownloadStore, damage: bytes
) -> None:
    fetch(files, store)
    store.path("images.zip").write_bytes(damage)
    fetch(files, store)
    assert_complete(store)


def test_intact_copy_serves_while_the_server_is_away(
    files: FileServer, store: DownloadStore, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(files, store)
    files.always[PATH] = refuse(503)
    assert fetch(files, store) == store.path("images.zip")
    assert_complete(store)
    assert "using the intact earlier download" in caplog.text


def test_absent_server_without_copy_is_an_error(store: DownloadStore) -> None:
    with pytest.raises(SourceError, match="the connection failed"):
        Downloader(store, QUICK).fetch("a.csv", "http://127.0.0.1:9/a.csv")


def test_missing_file_is_none_and_its_old_copy_goes(
    files: FileServer, store: DownloadStore
) -> None:
    fetch(files, store)
    del files.files[PATH]
    assert fetch(files, store) is None
    assert not store.path("images.zip").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_not_tried_again(
    files: FileServer, store: DownloadStore, status: int
) -> None:
    files.always[PATH] = refuse(status)
    with pytest.raises(SourceError, match=f"answers {status}. Check the credentials"):
        fetch(files, store)
    assert len(files.gets(PATH)) == 1


def test_content_must_have_the_hash_that_the_server_states(
    files: FileServer, store: DownloadStore
) -> None:
    files.headers[PATH] = {"X-Linked-ETag": '"' + "0" * 64 + '"'}
    with pytest.raises(SourceError, match="not what the server promised"):
        fetch(files, store)
    files.headers[PATH] = {"X-Linked-ETag": f'"{sha256_bytes(CONTENT)}"'}
    fetch(files, store)
    assert_complete(store)


def test_error_and_manifest_hide_secrets(files: FileServer, store: DownloadStore) -> None:
    url = files.url.replace("//", "//user:hunter2@") + PATH + "?token=hunter3"
    Downloader(store, QUICK).fetch("images.zip", url)
    files.always[PATH] = refuse(403)
    store.forget("other")
    with pytest.raises(SourceError) as caught:
        Downloader(store, QUICK).fetch("other", url)
    shown = str(caught.value) + (store.folder / "manifest.json").read_text()
    assert "hunter" not in shown
