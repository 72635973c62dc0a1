"""The command as a process: exit codes, logs without secrets, and SIGKILL at any moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from file_server import FileServer, Handler, serve

from product_classifier.core.files import sha256_file
from product_classifier.core.workspace import Workspace

PARAMS = """
ingest:
  sample: {products: 270, unlabelled: 27, seed: 3}
  photo_shards: 4
"""
# The ingest command alone: importing every other command would only cost time here.
PROGRAM = """
import sys, typer
from product_classifier import cli
cli._COMMANDS = ("ingest", "params")
sys.argv[0] = "product-classifier"
cli.main()
"""


@pytest.fixture
def command(project: Workspace) -> list[str]:
    project.params.write_text(PARAMS)
    return [sys.executable, "-c", PROGRAM, "ingest"]


def environment(**values: str) -> dict[str, str]:
    return {**os.environ, "NO_PROXY": "127.0.0.1", **values}


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_whole(raw: Path) -> None:
    manifest = json.loads((raw / "manifest.json").read_text())
    found = hashes(raw)
    del found["manifest.json"]
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == found


def images_zip(catalogue: Path) -> bytes:
    with zipfile.ZipFile(catalogue / "images.zip", "w") as archive:
        for path in sorted((catalogue / "images").rglob("*.jpg")):
            archive.write(path, path.relative_to(catalogue).as_posix())
    return (catalogue / "images.zip").read_bytes()


def test_success_is_exit_0_and_json_lines(project: Workspace, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["message"].startswith("Published 270 labelled and 27 unlabelled products")
    assert_whole(project.raw)


@pytest.mark.parametrize(
    ("source", "code"), [("nowhere", 2), (".", 2), ("http://127.0.0.1:9/x", 1)]
)
def test_bad_source_has_its_exit_code(
    project: Workspace, command: list[str], source: str, code: int
) -> None:
    done = subprocess.run(
        [*command, "--source", source],
        capture_output=True,
        text=True,
        env=environment(DOWNLOAD_ATTEMPTS="1"),
    )
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr


def test_logger_path_adds_a_file(project: Workspace, command: list[str]) -> None:
    values = environment(IMPORT_DATA_LOGGER_PATH="logs/import.log")
    subprocess.run(command, capture_output=True, check=True, env=values)
    assert "Published 270" in (project.root / "logs" / "import.log").read_text()


def test_secrets_are_in_no_log_and_no_file(
    project: Workspace, command: list[str], server: FileServer, catalogue: Path
) -> None:
    for path in catalogue.iterdir():
        if path.is_file():
            server.files[f"/c/{path.name}"] = path.read_bytes()
    server.files["/c/images.zip"] = images_zip(catalogue)
    server.script["/c/images.zip"] = [serve(cut_after=1000)]
    source = server.url.replace("//", "//user:hunter2@") + "/c?token=hunter3"
    values = environment(LOG_LEVEL="DEBUG", DATA_SOURCE=source)
    done = subprocess.run(command, capture_output=True, text=True, env=values)
    assert done.returncode == 0, done.stdout
    assert "authorization" in server.gets("/c/images.zip")[0]
    written = [path.read_bytes() for path in project.root.rglob("*") if path.is_file()]
    assert b"hunter" not in b"".join([*written, done.stdout.encode(), done.stderr.encode()])


@pytest.mark.parametrize("fatal", [signal.SIGKILL, signal.SIGTERM])
def test_killed_during_a_download_resumes_it(
    project: Workspace,
    command: list[str],
    server: FileServer,
    catalogue: Path,
    fatal: signal.Signals,
) -> None:
    for path in catalogue.iterdir():
        if path.is_file():
            server.files[f"/c/{path.name}"] = path.read_bytes()
    content = server.files["/c/images.zip"] = images_zip(catalogue)
    half = len(content) // 2
    process: subprocess.Popen[bytes]

    def send_half_and_kill(handler: Handler) -> None:
        handler.start(200, len(content), server.etag(handler.file))
        handler.wfile.write(content[:half])
        # Until the client has written what it got: then it is in the middle of the transfer.
        while not server.stopping.wait(0.01):
            parts = list(project.downloads.rglob("images.zip.part"))
            if parts and parts[0].stat().st_size == half:
                break
        process.send_signal(fatal)
        handler.cut()

    server.script["/c/images.zip"] = [send_half_and_kill]
    arguments = [*command, "--source", f"{server.url}/c"]
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL)
    process.wait()
    assert process.returncode in (-fatal, 128 + fatal)
    assert not project.raw.exists()
    subprocess.run(arguments, check=True, env=environment(), stdout=subprocess.DEVNULL)
    assert server.gets("/c/images.zip")[-1]["range"] == f"bytes={half}-"
    assert_whole(project.raw)


# Each names the event after which the process is killed: the k-th file that appears in a folder.
MOMENTS = ["data/downloads/.scratch/sample/images", "data/.raw.*/photos", "data/.raw.*"]


@pytest.mark.parametrize("first", [True, False], ids=["nothing published", "yesterday's data"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_import_leaves_all_or_nothing_and_the_next_run_is_whole(
    project: Workspace, command: list[str], published: Path, moment: str, first: bool
) -> None:
    wanted = hashes(published)
    if first:
        shutil.rmtree(project.raw)
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    while process.poll() is None and not any(project.root.glob(f"{moment}/*")):
        pass
    process.kill()
    process.wait()
    if project.raw.exists():
        assert hashes(project.raw) == wanted
    else:
        assert first or (project.raw.parent / ".raw.previous").exists()
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
    assert hashes(project.raw) == wanted
    assert not list(project.raw.parent.glob(".raw*"))
    assert not (project.downloads / ".scratch").exists()
