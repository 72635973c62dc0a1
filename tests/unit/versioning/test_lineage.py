import subprocess

import pytest

from product_classifier import __version__
from product_classifier.core.errors import VersioningError
from product_classifier.versioning.lineage import collect_lineage, read_git
from product_classifier.versioning.lockfile import parse_lock
from unit.versioning.project import Project


def git(project: Project, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", *identity, "-C", str(project.root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def committed(project: Project) -> Project:
    git(project, "init", "--quiet")
    (project.root / ".gitignore").write_text(
        "/.state\n/data\n/models\n/reports\n/runs\n/dvc-remote\n"
    )
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "first")
    return project


def test_a_clean_checkout_is_clean(committed: Project) -> None:
    assert read_git(committed.workspace) == (git(committed, "rev-parse", "HEAD"), False)


def test_dvc_lock_makes_no_checkout_dirty(committed: Project) -> None:
    committed.run_all()
    assert (committed.root / "dvc.lock").exists()
    assert read_git(committed.workspace)[1] is False


def test_a_changed_parameter_makes_it_dirty(committed: Project) -> None:
    with committed.workspace.params.open("a") as file:
        file.write("# changed\n")
    assert read_git(committed.workspace)[1] is True


def test_a_stage_is_recorded_without_touching_git(committed: Project) -> None:
    before = git(committed, "status", "--porcelain", "--ignored=no")
    committed.run_all()
    assert git(committed, "status", "--porcelain") == f"{before}\n?? dvc.lock".strip()


def test_without_git_the_commit_comes_from_the_image(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.root.parent))
    assert read_git(project.workspace) == (None, None)
    monkeypatch.setenv("GIT_COMMIT", "abc123")
    assert read_git(project.workspace) == ("abc123", None)


def test_the_tuple_is_complete(recorded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project = recorded
    monkeypatch.setenv("IMAGE_DIGEST", "sha256:1")
    with project.repository() as repository:
        lock = repository.lock_file()
    lineage = collect_lineage(project.workspace, lock)
    assert lineage["package_version"] == __version__
    assert lineage["image_digest"] == "sha256:1"
    assert lineage["airflow_run_id"] is None
    assert set(lineage["stages"]) == {"ingest", "train", "gate", "predict"}
    assert lineage["params_hash"] == lock.params_hash
    assert all(md5 for stage in lineage["stages"].values() for md5 in stage["deps"].values())


@pytest.mark.parametrize("content", [b"stages: [1]", b"\t:", b"stages: {a: {outs: [1]}}"])
def test_what_is_no_lock_file_is_refused(content: bytes) -> None:
    with pytest.raises(VersioningError, match="not a lock file"):
        parse_lock(content)
