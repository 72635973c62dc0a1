"""A checkout made under umask 077: what containers read that run as users of their own."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from product_classifier.commands.runtime import init_env
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings, get_settings
from product_classifier.runtime import compose_start, mounted_files
from product_classifier.runtime.choice import RuntimeChoice
from product_classifier.runtime.compose import Compose
from product_classifier.runtime.compose_start import ComposeRun
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.mounted_files import MOUNTED, open_mounted_files

ROOT = Path(__file__).parents[3]
SCRIPT = "run_compose_options.sh"


def mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o777:o}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Private in all its parts, as `git clone` leaves it."""
    root = tmp_path / "a private checkout"
    for name in MOUNTED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / SCRIPT, root / SCRIPT)
    (root / ".env").write_text("GRAFANA_ADMIN_PASSWORD=secret\n")
    for path in (root, *root.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    return root


def test_what_is_mounted_is_opened_and_nothing_else(checkout: Path) -> None:
    open_mounted_files(checkout)
    assert mode(checkout / "monitoring/prometheus/prometheus.yml") == "644"
    assert mode(checkout / "monitoring/prometheus/rules") == "755"
    assert mode(checkout / "monitoring/grafana/dashboards/service.json") == "644"
    assert mode(checkout / "containers/postgres/10-databases.sh") == "755"
    for name in MOUNTED:
        for path in ((checkout / name), *(checkout / name).rglob("*")):
            assert path.stat().st_mode & 0o004, path
            assert path.is_file() or path.stat().st_mode & 0o001, path
    # The way there stays closed, and so does what is secret.
    for private in (".", "monitoring", "monitoring/grafana", "containers"):
        assert mode(checkout / private) == "700"
    assert mode(checkout / ".env") == "600"


def test_what_a_link_points_to_stays_private(checkout: Path) -> None:
    (checkout / "monitoring/statsd/mine.yml").symlink_to(checkout / ".env")
    (checkout / "monitoring/statsd/folder").symlink_to(checkout)
    (checkout / "monitoring/statsd/nowhere.yml").symlink_to(checkout / "none")
    open_mounted_files(checkout)
    assert mode(checkout / ".env") == "600"
    assert mode(checkout / SCRIPT) == "700"


def test_what_is_open_is_left_alone_whoever_owns_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_mounted_files(checkout)
    monkeypatch.setattr(mounted_files.Path, "chmod", refuse)
    open_mounted_files(checkout)


def test_another_users_closed_files_are_named(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounted_files.Path, "chmod", refuse)
    with pytest.raises(ConfigurationError, match="another user.*chmod -R go") as error:
        open_mounted_files(checkout)
    assert "containers/gateway" in str(error.value)


def refuse(path: Path, mode: int) -> None:
    raise PermissionError(1, "Operation not permitted", str(path))


def test_make_env_opens_them(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "dvc.yaml").write_text("stages: {}\n")
    shutil.copytree(ROOT / "monitoring/alertmanager", checkout / "monitoring/alertmanager")
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("IMAGE_TAG", "any")
    monkeypatch.setattr(compose_start, "docker", lambda *arguments: "")
    get_settings.cache_clear()
    try:
        init_env()
    finally:
        get_settings.cache_clear()
    assert mode(checkout / "monitoring/prometheus/prometheus.yml") == "644"
    assert mode(checkout / ".env") == mode(checkout / ".state/compose.env") == "600"
    assert mode(checkout / ".state/monitoring/alertmanager-stack/alertmanager.yml") == "600"


def test_make_start_opens_them_before_the_stack_is_up(
    checkout: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(checkout)
    layout.state.mkdir()
    run = ComposeRun(layout, Console(quiet=True), RuntimeChoice("docker", "test"))
    for name, answer in (("require_free_ports", None), ("missing_images", [])):
        monkeypatch.setattr(compose_start, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(Compose, "containers", lambda _: [])
    seen = []
    monkeypatch.setattr(
        run, "_up", lambda: seen.append(mode(checkout / "monitoring/statsd/mapping.yml"))
    )
    run.bring_up(settings.model_copy(update={"image_tag": "any", "monitoring": "off"}))
    assert seen == ["644"]


def test_all_that_containers_mount_of_the_checkouts_own_files_is_in_the_list() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    sources = {
        volume.split(":")[0].removeprefix("./")
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./") and not volume.startswith("./.state/")
    }
    assert sources
    for source in sources:
        path = ROOT / source
        folder = path if path.is_dir() else path.parent
        assert str(folder.relative_to(ROOT)) in MOUNTED, source
    for name in MOUNTED:
        assert any(source == name or source.startswith(f"{name}/") for source in sources), name


def test_what_images_take_out_of_the_checkout_says_its_mode() -> None:
    """But what root reads: the package's build, and the proxy before the socket."""
    read_by_root = {"LICENSE", "src", "pyproject.toml", "containers/socket-proxy/socket_proxy"}
    lines = [
        line
        for file in (ROOT / "Dockerfile", *ROOT.glob("*/Dockerfile"), *ROOT.glob("*/*/Dockerfile"))
        for line in file.read_text().splitlines()
        if line.startswith("COPY ") and "--from=" not in line
    ]
    assert len(lines) >= 8
    for line in lines:
        if line.split()[1] not in read_by_root:
            assert re.match(r"COPY --chmod=0(644|755) ", line), line


def run_script(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """With a docker that only says how it is called."""
    programs = checkout / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "docker").write_text('#!/bin/sh\necho "docker $*"\n')
    (programs / "docker").chmod(0o755)
    return subprocess.run(
        ["bash", str(checkout / SCRIPT), *arguments],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["monitoring", "airflow", "serve", "pipeline", "train"])
def test_by_hand_closed_files_are_named_before_anything_starts(
    checkout: Path, command: str
) -> None:
    refused = run_script(checkout, command)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.fullmatch(r"Containers can't read containers/\S+\. `make env` .*\n", refused.stderr)
    open_mounted_files(checkout)
    started = run_script(checkout, command)
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.startswith("docker compose --env-file .env ")


@pytest.mark.parametrize("name", MOUNTED)
def test_the_script_looks_at_each_of_them(checkout: Path, name: str) -> None:
    open_mounted_files(checkout)
    closed = next(path for path in (checkout / name).rglob("*") if path.is_file())
    closed.chmod(0o600)
    refused = run_script(checkout, "monitoring")
    assert str(closed.relative_to(checkout)) in refused.stderr


@pytest.mark.parametrize("command", ["status", "down", "import", "help"])
def test_what_starts_none_of_them_does_not_ask(checkout: Path, command: str) -> None:
    assert run_script(checkout, command).returncode == 0
