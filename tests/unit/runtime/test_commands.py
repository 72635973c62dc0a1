"""The small parts behind the commands: assignments, clean, runtime choice, set-up, help."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pydantic import SecretStr
from typer.testing import CliRunner

from product_classifier.commands import runtime as commands
from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime import choice, cleanup
from product_classifier.runtime.choice import Engine
from product_classifier.runtime.cleanup import clean
from product_classifier.runtime.initialise import needs_migration, write_passwords

ROOT = Path(__file__).parents[3]


def test_values_of_set_are_typed():
    values = ["text_epochs=5", "branches=reuse", "seed=null", "data_source=a=b"]
    assert commands.parse_assignments(values) == {
        "text_epochs": 5,
        "branches": "reuse",
        "seed": None,
        "data_source": "a=b",
    }


@pytest.mark.parametrize("value", ["text_epochs", "=5"])
def test_a_malformed_pair_is_refused(value):
    with pytest.raises(ConfigurationError, match="key=value"):
        commands.parse_assignments([value])


def test_every_command_has_a_help_text():
    app = typer.Typer()
    commands.register(app)
    for name in ("start", "stop", "status", "logs", "init-env", "init-airflow", "doctor", "clean"):
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0
        assert len(result.output.splitlines()) > 4


def engine(**found):
    return lambda: Engine(**{"version": "28.0.0", "compose": "2.40.0", **found})


@pytest.mark.parametrize("wanted", ["auto", "docker"])
def test_an_engine_that_can_be_used_is_used(settings, monkeypatch, wanted):
    monkeypatch.setattr(choice, "find_engine", engine())
    chosen = choice.choose_runtime(settings.model_copy(update={"pipeline_runtime": wanted}))
    assert chosen.name == "docker"
    assert "28.0.0" in chosen.reason


def test_process_asks_no_engine(settings, monkeypatch):
    monkeypatch.setattr(choice, "find_engine", None)
    chosen = choice.choose_runtime(settings.model_copy(update={"pipeline_runtime": "process"}))
    assert chosen.name == "process"


def test_without_an_engine_stages_run_as_processes(settings, monkeypatch):
    monkeypatch.setattr(choice, "find_engine", engine(problem="no container engine answers"))
    chosen = choice.choose_runtime(settings)
    assert chosen.name == "process"
    assert "no container engine answers" in chosen.reason


def test_docker_without_an_engine_is_refused_with_the_reason(settings, monkeypatch):
    monkeypatch.setattr(choice, "find_engine", engine(problem="docker has no Compose plugin"))
    asked = settings.model_copy(update={"pipeline_runtime": "docker"})
    with pytest.raises(ConfigurationError, match="docker has no Compose plugin"):
        choice.choose_runtime(asked)


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"version": "20.10.24+dfsg1", "compose": "v2.26.1-4", "buildx": "v0.13"}, None),
        ({"version": "28.2.2", "compose": "5.0.1", "buildx": "v0.30"}, None),
        ({"version": None}, "no container engine answers"),
        ({"version": "28.2.2", "compose": None}, "no Compose plugin"),
        ({"version": "28.2.2", "compose": "2.30.0", "buildx": None}, "no buildx plugin"),
        ({"version": "19.3.15", "compose": "2.26.1", "buildx": "v0.13"}, "Docker Engine 20.10"),
        ({"version": "28.2.2", "compose": "2.5.0", "buildx": "v0.13"}, "Compose 2.26"),
    ],
)
def test_what_an_engine_lacks_is_said(monkeypatch, answers, problem):
    def ask(*command):
        value = answers[command[1]]
        return (value is not None, value or "it says no")

    monkeypatch.setattr(choice.shutil, "which", lambda _: "/usr/bin/docker")
    monkeypatch.setattr(choice, "_ask", ask)
    found = choice.find_engine().problem
    assert found is None if problem is None else problem in found


def test_clean_removes_caches_and_state_and_never_data_models_or_runs(layout, settings):
    kept = [layout.root / name for name in ("data", "models", "runs", "dvc-remote", ".env")]
    for path in kept[:-1]:
        (path / "__pycache__").mkdir(parents=True)
    kept[-1].write_text("")
    (layout.root / "src" / "x" / "__pycache__").mkdir(parents=True)
    (layout.root / ".mypy_cache").mkdir()
    clean(layout, settings)
    assert all(path.exists() for path in kept)
    assert (layout.root / "data" / "__pycache__").exists()
    assert not layout.state.exists()
    assert not (layout.root / ".mypy_cache").exists()
    assert not list((layout.root / "src").rglob("__pycache__"))


def test_clean_leaves_everything_where_containers_run(layout, settings, monkeypatch):
    monkeypatch.setattr(cleanup, "stack_runs", lambda *_: True)
    with pytest.raises(ConfigurationError, match="make stop"):
        clean(layout, settings)
    assert layout.state.exists()


def test_airflows_password_file_is_private_and_follows_the_settings(layout, settings):
    settings = settings.model_copy(
        update={"airflow_trigger_password": SecretStr("another password")}
    )
    write_passwords(layout, settings)
    path = layout.airflow_home / "passwords.json"
    assert json.loads(path.read_text()) == {"admin": "a password", "trigger": "another password"}
    assert path.stat().st_mode & 0o077 == 0


def test_without_a_password_nobody_signs_in_as_the_account_that_triggers(layout, settings):
    write_passwords(layout, settings)
    content = json.loads((layout.airflow_home / "passwords.json").read_text())
    assert len(content["trigger"]) > 30


def test_one_name_for_both_of_airflows_accounts_is_refused(layout, settings):
    same = settings.model_copy(update={"airflow_trigger_user": settings.airflow_admin_user})
    with pytest.raises(ConfigurationError, match="AIRFLOW_TRIGGER_USER must be another"):
        write_passwords(layout, same)


def test_a_database_made_by_other_packages_is_migrated(layout):
    lock = layout.root / "airflow" / "uv.lock"
    lock.write_text("one")
    assert needs_migration(layout)
    (layout.airflow_home / "airflow.db").touch()
    from product_classifier.core.files import sha256_file

    (layout.airflow_home / ".migrated").write_text(sha256_file(lock))
    assert not needs_migration(layout)
    lock.write_text("two")
    assert needs_migration(layout)


def test_setting_up_again_does_nothing_and_needs_no_network(tmp_path):
    copy = tmp_path / "src" / "product_classifier" / "runtime" / "bootstrap.py"
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / "src" / "product_classifier" / "runtime" / "bootstrap.py").read_text())
    code = """
import sys, runpy
sys.path.insert(0, sys.argv[1])
import bootstrap
for project, title in ((bootstrap.ROOT, "project"), (bootstrap.ROOT / "airflow", "airflow")):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").touch()
    for name in ("pyproject.toml", "uv.lock"):
        (project / name).touch()
    bootstrap.UV.parent.mkdir(parents=True, exist_ok=True)
    bootstrap.UV.write_text("must not be called")
    (bootstrap.TOOLS / f"uv-{bootstrap.UV_VERSION}").touch()
    (bootstrap.TOOLS / f"{title}.synced").write_text(bootstrap.fingerprint(project))
bootstrap.main()
"""
    command = [sys.executable, "-c", code, str(copy.parent)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_make_alone_lists_every_target():
    result = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True)
    text = (ROOT / "Makefile").read_text()
    (phony,) = [line for line in text.splitlines() if line.startswith(".PHONY:")]
    for target in phony.split()[1:]:
        assert f"  {target} " in result.stdout
