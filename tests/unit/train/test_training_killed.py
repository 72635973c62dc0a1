"""SIGKILL, started again, killed again, finished: the same model as an undisturbed training."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from product_classifier.core.bundle import MANIFEST, load_bundle
from product_classifier.core.workspace import Workspace
from unit.train.conftest import CopyWorkspace


def start(workspace: Workspace, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "product_classifier", "train"],
            cwd=workspace.root,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def kill_when(process: subprocess.Popen[bytes], found: Iterator[bool]) -> None:
    """Kills as soon as `found` gives True, which it must before the process ends."""
    for there in found:
        if there:
            break
        try:
            process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"The training ended first, with {process.returncode}.")
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL


def checkpoint(workspace: Workspace, branch: str) -> Iterator[bool]:
    while True:
        yield any((workspace.cache / "training").rglob(f"{branch}/state.json"))


def test_a_killed_training_goes_on_and_ends_with_the_same_model(
    copy_workspace: CopyWorkspace, tmp_path: Path
) -> None:
    workspace, log = copy_workspace(), tmp_path / "log"
    yesterday = (workspace.candidate / MANIFEST).read_bytes()
    undisturbed = load_bundle(workspace.candidate).manifest
    for branch in ("text_branch", "image_head"):
        kill_when(start(workspace, log), checkpoint(workspace, branch))
        assert (workspace.candidate / MANIFEST).read_bytes() == yesterday
        assert load_bundle(workspace.candidate).manifest == undisturbed
    assert start(workspace, log).wait() == 0, log.read_text()[-3000:]
    assert "resumes after epoch" in log.read_text()
    found = load_bundle(workspace.candidate).manifest
    assert found.created_at > undisturbed.created_at
    assert found.content_id == undisturbed.content_id
    assert found.metrics["fusion"] == undisturbed.metrics["fusion"]
    assert not (workspace.cache / "training").exists()
    assert [path.name for path in workspace.models.iterdir() if path.name.endswith(".tmp")] == []


def test_bad_input_ends_with_exit_code_2(workspace: Workspace, tmp_path: Path) -> None:
    workspace.params.write_text("train: {image: {weights: random}}\n")
    log = tmp_path / "log"
    assert start(workspace, log).wait() == 2
    assert "Run `product-classifier ingest` first" in log.read_text()
