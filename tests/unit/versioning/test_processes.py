"""Commands as processes: exit codes, several at once, killed at any moment, and DVC's own command line."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from product_classifier.core.params import load_params
from product_classifier.versioning.params_file import set_params
from unit.versioning.project import Project

# Only these commands: no other subject's packages are needed to test them.
CLI = "import product_classifier.cli as cli; cli._COMMANDS = ('versioning', 'params'); cli.main()"
KILL_AT = """
import os, signal, importlib
def _kill_at(where, after):
    module, name = where.rsplit(":", 1)
    owner = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    work = getattr(owner, name)
    calls = [0]
    def wrapper(*args, **kwargs):
        calls[0] += 1
        if calls[0] > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*args, **kwargs)
    setattr(owner, name, wrapper)
"""


def start(project: Project, *arguments: str, before: str = "") -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "DVC_REMOTE_URL": project.settings.dvc_remote_url or "",
    }
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{CLI}", *arguments],
        cwd=project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(project: Project, *arguments: str, before: str = "") -> tuple[int, str]:
    process = start(project, *arguments, before=before)
    output, _ = process.communicate(timeout=400)
    return process.returncode, output


def test_check_and_version_speak_in_exit_codes(project: Project) -> None:
    project.ingest()
    project.version("ingest")
    project.train()
    project.version("train")
    assert run(project, "check", "gate")[0] == 0
    project.gate()
    code, output = run(project, "version", "gate")
    assert code == 0
    assert "gate: 1 objects on" in output
    code, output = run(project, "check", "gate")
    assert (code, "nothing changed" in output) == (99, True)
    assert run(project, "version", "predict")[0] == 1  # no predictions yet
    assert run(project, "restore", "--run", "nonsense")[0] == 2
    code, output = run(project, "verify")
    assert (code, "YES: what is served" in output) == (0, True)


def test_check_completes_a_recording_that_the_remote_missed(project: Project) -> None:
    project.ingest()
    project.version("ingest")
    project.train()
    project.version("train")
    project.gate()
    stored = project.root / "away"
    project.remote.rename(stored)
    project.remote.write_text("no folder")
    code, output = run(project, "version", "gate")
    assert code == 1
    assert "local commit of gate is kept" in output
    assert run(project, "check", "gate")[0] == 1
    project.remote.unlink()
    stored.rename(project.remote)
    code, output = run(project, "check", "gate")
    assert code == 99
    assert "recording it" in output
    with project.repository() as repository:
        outs = repository.lock_file().stages["gate"].outs
    assert {out.md5 for out in outs} <= project.remote_objects()


def test_params_commands(project: Project) -> None:
    epochs = load_params(project.workspace.params).train.text.epochs
    code, output = run(project, "params", "show", "train.text.epochs")
    assert (code, output) == (0, f"train.text.epochs={epochs}\n")
    assert run(project, "params", "set", "train.text.epochs=3", "train.seed=9")[0] == 0
    assert load_params(project.workspace.params).train.text.epochs == 3
    assert run(project, "params", "set", "train.seed=9") == (0, "")
    code, output = run(project, "params", "set", "train.seeds=9")
    assert (code, "train.seed" in output) == (2, True)
    assert run(project, "params", "set", "train.seed=x")[0] == 2


def test_commands_at_once_wait_for_each_other(recorded: Project) -> None:
    project = recorded
    commands = [("version", "train"), ("version", "gate"), ("version", "ingest"), ("verify",)]
    processes = [start(project, *command) for command in commands]
    foreign = [
        subprocess.Popen(
            [sys.executable, "-m", "dvc", "status", "--quiet"],
            cwd=project.root,
            env={**os.environ, "DVC_NO_ANALYTICS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    ]
    outcomes = {}
    for command, process in zip(commands, processes, strict=True):
        output, _ = process.communicate(timeout=400)
        outcomes[command] = (process.returncode, output)
    for process in foreign:
        process.wait(timeout=400)
    for command in commands[:3]:
        assert outcomes[command][0] == 0, outcomes[command][1]
    assert run(project, "verify")[0] == 0


@pytest.mark.parametrize(
    ("where", "after"),
    [
        ("product_classifier.versioning.repository:Repository.push", 0),
        ("dvc_objects.fs.generic:transfer", 1),
        ("product_classifier.versioning.remote:Remote.missing", 0),
        ("product_classifier.versioning.remote:write_bytes_atomic", 1),
        ("product_classifier.versioning.record:note_recorded", 0),
    ],
)
def test_a_killed_version_is_completed_by_the_next(
    project: Project, tmp_path: Path, where: str, after: int
) -> None:
    project.ingest()
    code, output = run(
        project, "version", "ingest", before=f"{KILL_AT}\n_kill_at({where!r}, {after})"
    )
    assert code == -signal.SIGKILL, output
    assert not project.check("ingest").must_run or not (project.root / "dvc.lock").exists()
    project.version("ingest")
    assert project.verify(with_remote=True).is_sound
    clone = project.clone(tmp_path / "clone")
    clone.restore(None)
    assert clone.outputs() == project.outputs()


@pytest.mark.parametrize(
    ("where", "after"),
    [
        ("product_classifier.versioning.remote:Remote._fetch_one", 5),
        ("product_classifier.versioning.materialise:_copy", 9),
        ("product_classifier.core.files:_fsync_directory", 2),
        ("product_classifier.versioning.champion:publish_release", 0),
        ("product_classifier.versioning.restore:write_bytes_atomic", 0),
        ("product_classifier.versioning.restore:write_bytes_atomic", 1),
    ],
)
def test_a_killed_restore_is_completed_by_the_next(
    recorded_twice: Project, tmp_path: Path, where: str, after: int
) -> None:
    [(first, before), _] = recorded_twice.history
    clone = recorded_twice.clone(tmp_path / "clone")
    clone.restore(None)
    code, output = run(
        clone, "restore", "--run", first, before=f"{KILL_AT}\n_kill_at({where!r}, {after})"
    )
    assert code == -signal.SIGKILL, output
    clone.restore(first)
    assert clone.outputs() == before
    assert clone.verify().is_sound
    leftovers = [p for p in clone.root.rglob(".*.tmp") if ".dvc" not in p.parts]
    assert leftovers == []


def fake_program(project: Project, folder: Path) -> None:
    """Puts a `product-classifier` on the PATH whose stages write what these tests' stages write."""
    folder.mkdir()
    program = folder / "product-classifier"
    tests = Path(__file__).parents[2]
    script = folder / "stages.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(tests)!r}]\n"
        "from pathlib import Path\n"
        "from unit.versioning.project import Project\n"
        "from product_classifier.core.workspace import Workspace\n"
        "import conftest\n"
        "project = Project.__new__(Project)\n"
        "project.workspace = Workspace(Path.cwd())\n"
        "project.make_bundle = conftest.make_bundle.__wrapped__()\n"
        "getattr(project, sys.argv[1])()\n"
    )
    # No shebang with the interpreter: its path may hold spaces.
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def dvc(project: Project, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PATH": f"{project.root.parent / 'bin'}:{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(project.root.parent / "site"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(project: Project, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(
        ["git", *identity, *arguments], cwd=project.root, check=True, capture_output=True
    )


def test_a_data_scientist_works_with_dvc_alone(project: Project, tmp_path: Path) -> None:
    fake_program(project, tmp_path / "bin")
    (project.root / ".gitignore").write_text("/data\n/models\n/reports\n/runs\n/dvc-remote\n")
    git(project, "init", "--quiet")
    dvc(project, "repro")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "first")
    for stage in ("ingest", "train", "gate", "predict"):
        assert not project.check(stage).must_run
    epochs = load_params(project.workspace.params).train.text.epochs
    set_params(project.workspace.params, {"train.text.epochs": 7})
    dvc(project, "repro")
    diff = json.loads(dvc(project, "metrics", "diff", "--json"))
    assert diff["reports/train/metrics.json"]["epochs"] == {
        "old": epochs,
        "new": 7,
        "diff": 7 - epochs,
    }
    plots = json.loads(dvc(project, "plots", "show", "--json"))
    assert "reports/train/plots/curve.csv" in plots["data"]
    dvc(project, "push")

    clone = Project(tmp_path / "clone", project.make_bundle)
    (clone.root / "dvc.lock").write_bytes((project.root / "dvc.lock").read_bytes())
    (clone.root / "dvc-remote").symlink_to(project.remote)
    git(clone, "init", "--quiet")
    dvc(clone, "pull")
    for name in ("data/raw/X_train_update.csv", "models/candidate/manifest.json"):
        assert (clone.root / name).read_bytes() == (project.root / name).read_bytes()
