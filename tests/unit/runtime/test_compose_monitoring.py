"""`product-classifier monitoring` in containers; with a docker that notes what it is told."""

import json
import os
import shlex
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from product_classifier.commands import monitoring as commands
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import get_settings
from product_classifier.core.textfile import read_metrics
from product_classifier.core.workspace import Workspace
from product_classifier.runtime import choice, compose_monitoring
from product_classifier.runtime.choice import Engine, RuntimeChoice, choose_running
from product_classifier.runtime.compose_monitoring import start_stack_monitoring
from product_classifier.runtime.monitoring.services import SERVICES
from product_classifier.runtime.monitoring.stack_started import FILE, note_stack_start
from product_classifier.runtime.supervision import Supervisor

ROOT = Path(__file__).parents[3]
DOCKER = """#!/bin/sh
printf '%s\\n' "$*" >> {notes}
case "$1 $2" in
  "ps --all") cat {containers} ;;
  "image ls") cat {images} ;;
  "version --format") echo 28.0.0 ;;
  "compose version") echo 2.40.0 ;;
esac
case "$*" in *"config --services") cat {services} ;; esac
"""


class Engines:
    """The fake engine of one test: what it has, and what it was told."""

    def __init__(self, folder):
        self.containers, self.images = folder / "containers", folder / "images"
        self.notes = folder / "notes"
        self.services = folder / "services"
        for path in (self.containers, self.images, self.notes, self.services):
            path.write_text("")
        program = folder / "docker"
        values = {
            name: shlex.quote(str(getattr(self, name)))
            for name in ("containers", "images", "notes", "services")
        }
        program.write_text(DOCKER.format(**values))
        program.chmod(0o755)

    def runs(self, *services, state="running", ports=""):
        labels = "com.docker.compose.project=product-classifier,com.docker.compose.service="
        with self.containers.open("a") as file:
            for name in services:
                one = {"ID": name, "State": state, "Status": "Up 1 second", "Ports": ports}
                file.write(json.dumps({**one, "Labels": labels + name}) + "\n")

    def told(self, word):
        return [
            words for words in map(str.split, self.notes.read_text().splitlines()) if word in words
        ]


@pytest.fixture
def engine(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    engine = Engines(folder)
    engine.images.write_text("product-classifier/auth:abc\n")
    engine.services.write_text("\n".join(["gateway", "serve", *SERVICES]))
    return engine


@pytest.fixture
def checkout(layout, monkeypatch):
    (layout.root / "monitoring").symlink_to(ROOT / "monitoring")
    monkeypatch.chdir(layout.root)
    for name, value in (("PIPELINE_RUNTIME", "docker"), ("IMAGE_TAG", "abc")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(compose_monitoring, "require_free_ports", lambda _: None)
    get_settings.cache_clear()
    yield layout
    get_settings.cache_clear()


def start(layout):
    console = Console(record=True, width=200)
    start_stack_monitoring(layout, console, RuntimeChoice("docker", "test"))
    return console.export_text()


def test_its_services_are_brought_up_and_nothing_else(engine, checkout):
    said = start(checkout)
    (up,) = engine.told("up")
    assert up[-len(SERVICES) :] == list(SERVICES)
    assert up[-len(SERVICES) - 1].startswith("--")  # no other service before them
    assert "--profile=monitoring" in up
    assert "http://localhost:9090" in said
    assert "Grafana: http://localhost:3000" in said
    # What the containers read is there.
    assert (checkout.monitoring / "alertmanager-stack" / "alertmanager.yml").is_file()
    assert "ALERTMANAGER_DIGEST='" in (checkout.state / "compose.env").read_text()


def test_what_an_override_leaves_out_is_not_brought_up(engine, checkout):
    engine.services.write_text("\n".join({"gateway", *SERVICES} - {"grafana"}))
    start(checkout)
    (up,) = engine.told("up")
    assert "grafana" not in up
    assert "prometheus" in up


def test_the_script_brings_up_the_same_services():
    text = (ROOT / "run_compose_options.sh").read_text()
    words = text.partition("  monitoring) ")[2].partition(";;")[0].replace("\\\n", " ").split()
    first = words.index("--no-deps") + 1
    assert set(words[first : words.index('"$@"')]) == set(SERVICES)


def test_only_the_image_that_it_needs_is_asked_for(engine, checkout):
    engine.images.write_text("")
    with pytest.raises(ConfigurationError, match="no such images of auth\\."):
        start(checkout)
    assert engine.told("up") == []


def test_a_changed_receiver_is_told_to_compose(engine, checkout, monkeypatch):
    def digest():
        lines = (checkout.state / "compose.env").read_text().splitlines()
        return next(line for line in lines if line.startswith("ALERTMANAGER_DIGEST="))

    start(checkout)
    before = digest()
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "https://example.org/the-token")
    start(checkout)
    assert digest() != before
    assert "the-token" not in (checkout.state / "compose.env").read_text()


def test_the_note_of_the_stacks_start_is_left_as_it_is(engine, checkout):
    workspace = Workspace(checkout.root)
    start(checkout)  # alone: there is no stack of which anything could be gone
    assert not read_metrics(workspace.metrics, FILE)
    note_stack_start(workspace, watched=False)
    noted = read_metrics(workspace.metrics, FILE)
    engine.runs("postgres", "serve")  # Prometheus is gone, and perhaps another service
    start(checkout)
    assert read_metrics(workspace.metrics, FILE) == noted


def test_ports_are_looked_at_but_for_those_of_our_own_containers(engine, checkout, monkeypatch):
    asked = []
    monkeypatch.setattr(compose_monitoring, "require_free_ports", asked.append)
    engine.runs("prometheus", ports="127.0.0.1:9090->9090/tcp")
    start(checkout)
    assert asked == [{"ALERTMANAGER_PORT": 9093, "NODE_EXPORTER_PORT": 9100, "GRAFANA_PORT": 3000}]


def test_switched_off_it_is_refused(engine, checkout, monkeypatch):
    monkeypatch.setenv("MONITORING", "off")
    get_settings.cache_clear()
    with pytest.raises(ConfigurationError, match="MONITORING=off"):
        start(checkout)
    assert not checkout.dotenv.exists()


@pytest.mark.parametrize(
    ("wanted", "processes", "written", "alive", "expected"),
    [
        ("docker", True, True, True, "process"),
        ("process", False, True, True, "docker"),
        ("process", False, True, False, "process"),
        ("process", False, False, True, "process"),
        ("auto", False, True, False, "docker"),
    ],
    ids=[
        "processes run",
        "the stack runs",
        "the stack was stopped",
        "another checkout's stack runs",
        "nothing ran",
    ],
)
def test_what_runs_decides_and_else_what_a_start_would_do(
    engine, layout, settings, monkeypatch, wanted, processes, written, alive, expected
):
    monkeypatch.setattr(Supervisor, "answers", lambda _: processes)
    if written:
        (layout.state / "compose.env").write_text("")
    engine.runs("gateway", state="running" if alive else "exited")
    chosen = settings.model_copy(update={"pipeline_runtime": wanted})
    assert choose_running(layout, chosen).name == expected


def test_without_an_engine_there_is_no_stack_to_ask(layout, settings, monkeypatch):
    monkeypatch.setattr(choice, "find_engine", lambda: Engine(problem="no engine answers"))
    (layout.state / "compose.env").write_text("")
    assert choose_running(layout, settings).name == "process"
    wanted = settings.model_copy(update={"pipeline_runtime": "docker"})
    with pytest.raises(ConfigurationError, match="no engine answers"):
        choose_running(layout, wanted)


def test_the_command_starts_it_where_a_start_would_run_in_containers(engine, checkout):
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, ["monitoring"])
    assert result.exit_code == 0, result.output
    assert len(engine.told("up")) == 1
    assert "http://localhost:9093" in result.output
