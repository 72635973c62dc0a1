"""When the container stack was started, as `make start` tells Prometheus: who renews it, and who makes it forgotten."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from product_classifier.core.textfile import read_metrics
from product_classifier.core.workspace import Workspace
from product_classifier.runtime import compose_start
from product_classifier.runtime.choice import RuntimeChoice
from product_classifier.runtime.compose import Compose, Container
from product_classifier.runtime.monitoring import stack_started
from product_classifier.runtime.monitoring.configuration import write_configuration
from product_classifier.runtime.monitoring.stack_started import (
    FILE,
    STARTED,
    forget_stack_start,
    note_stack_start,
)

ROOT = Path(__file__).parents[3]
SCRIPT = "run_compose_options.sh"


@pytest.fixture
def clock(monkeypatch):
    """Time goes on when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(stack_started.time, "time", lambda: now[0])
    return now


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def noted(workspace):
    return read_metrics(workspace.metrics, FILE).get((STARTED, frozenset()))


def test_it_is_the_time_of_the_start_and_everybody_can_read_it(workspace):
    mask = os.umask(0o077)
    try:
        note_stack_start(workspace, watched=False)
    finally:
        os.umask(mask)
    assert time.time() - 60 < noted(workspace) <= time.time()
    # A rename put it there: no temporary file is left.
    assert [path.name for path in workspace.metrics.iterdir()] == ["stack.prom"]
    assert (workspace.metrics / "stack.prom").stat().st_mode & 0o777 == 0o644


def test_a_start_renews_it_but_where_prometheus_watched_already(workspace, clock):
    note_stack_start(
        workspace, watched=True
    )  # the first start that notes it finds a stack that runs
    assert noted(workspace) == 1000
    clock[0] = 2000
    note_stack_start(workspace, watched=True)
    assert noted(workspace) == 1000
    note_stack_start(workspace, watched=False)
    assert noted(workspace) == 2000


def test_a_damaged_note_is_made_anew(workspace, clock):
    workspace.metrics.mkdir(parents=True)
    (workspace.metrics / "stack.prom").write_text(f"{STARTED} \x00")
    note_stack_start(workspace, watched=True)
    assert noted(workspace) == 1000


def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(workspace):
    note_stack_start(workspace, watched=False)
    forget_stack_start(workspace)
    forget_stack_start(workspace)
    assert list(workspace.metrics.iterdir()) == []


def test_a_folder_that_can_not_be_used_stops_nothing(tmp_path, caplog):
    (tmp_path / ".state").write_text("")
    note_stack_start(Workspace(tmp_path), watched=False)
    assert "metrics of stack were not written" in caplog.text
    forget_stack_start(Workspace(tmp_path))
    assert "still noted" in caplog.text


def container(service, state="running"):
    return Container(service, service, "stack", state, "", "Up 4 seconds", "", 0)


@pytest.fixture
def started(layout, settings, monkeypatch, clock):
    """Starts the container stack with these containers before, and an engine that does nothing."""
    (layout.root / "monitoring").symlink_to(ROOT / "monitoring")
    chosen = settings.model_copy(update={"image_tag": "abc"})

    def start(*before, **changed):
        run = compose_start.ComposeRun(layout, Console(quiet=True), RuntimeChoice("docker", "test"))
        monkeypatch.setattr(Compose, "containers", lambda _: list(before))
        monkeypatch.setattr(Compose, "run", lambda *_: "")
        monkeypatch.setattr(compose_start, "require_free_ports", lambda _: None)
        monkeypatch.setattr(compose_start, "missing_images", lambda *_: [])
        monkeypatch.setattr(run, "_up", lambda: None)
        run.bring_up(chosen.model_copy(update=changed))
        return noted(Workspace(layout.root))

    return start


def test_starts_that_repair_keep_it_and_starts_from_nothing_renew_it(started, clock):
    assert started() == 1000
    clock[0] = 2000
    assert started(container("prometheus"), container("postgres")) == 1000
    assert started(container("postgres")) == 2000  # the rest was started by hand
    clock[0] = 3000
    assert started(container("prometheus", "exited"), container("serve")) == 3000


def test_without_monitoring_it_is_not_noted(started):
    assert started(monitoring="off") is None


def test_stop_forgets_it_even_where_nothing_runs(started, layout, settings, monkeypatch):
    started()
    monkeypatch.setattr(Compose, "stop", lambda *_: False)
    assert compose_start.stop_stack(layout, settings) is False
    assert noted(Workspace(layout.root)) is None


def test_a_stop_that_fails_leaves_what_still_runs_watched(started, layout, settings, monkeypatch):
    started()

    def fail(*_):
        raise OSError("the engine went away")

    monkeypatch.setattr(Compose, "stop", fail)
    with pytest.raises(OSError, match="went away"):
        compose_start.stop_stack(layout, settings)
    assert noted(Workspace(layout.root)) == 1000


def test_the_embedded_run_is_told_of_no_stack(started, layout, settings):
    started()
    write_configuration(layout, settings, deployed=())
    assert noted(Workspace(layout.root)) is None


@pytest.fixture
def script(tmp_path):
    """The script in a checkout of its own, with a docker that only ends as it is told to."""
    root = tmp_path / "check out"
    root.mkdir()
    shutil.copy(ROOT / SCRIPT, root)
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nexit "${DOCKER_ENDS_WITH:-0}"\n')
    program.chmod(0o755)

    def call(*arguments, **environment):
        path = f"{program.parent}:{os.environ['PATH']}"
        command = [str(root / SCRIPT), *arguments]
        return subprocess.run(command, env={"PATH": path, **environment}, cwd=tmp_path).returncode

    return root, call


def test_down_by_hand_forgets_it_in_the_workspace_of_the_stack(script, tmp_path):
    root, call = script
    here, elsewhere = Workspace(root), Workspace(tmp_path / "the work space")
    for workspace in (here, elsewhere):
        note_stack_start(workspace, watched=False)
    assert call("down", DOCKER_ENDS_WITH="3") == 3
    assert call("status") == 0
    assert noted(here)
    assert call("down") == 0
    assert noted(here) is None
    assert noted(elsewhere)
    (root / ".state" / "compose.env").write_text(
        f"IMAGE_TAG='abc'\nPROJECT_HOST_PATH='{elsewhere.root}'\n"
    )
    assert call("down", "--volumes") == 0
    assert noted(elsewhere) is None
    note_stack_start(here, watched=False)
    assert call("down", PROJECT_HOST_PATH=str(here.root)) == 0
    assert noted(here) is None
