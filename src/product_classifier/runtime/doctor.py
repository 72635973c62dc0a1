"""`product-classifier doctor`: what this machine has and lacks, and what to do about it."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.markup import escape

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.settings import (
    MAX_PASSWORD_BYTES,
    MIN_PASSWORD_CHARACTERS,
    MonitoringSettings,
    Settings,
    get_settings,
    is_placeholder,
)
from product_classifier.runtime.choice import find_engine
from product_classifier.runtime.compose import Compose
from product_classifier.runtime.dagshub_check import check_dagshub
from product_classifier.runtime.findings import Finding
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.alertmanager_config import Receivers
from product_classifier.runtime.monitoring.programs import (
    find_programs,
    install_hint,
    missing_programs,
)
from product_classifier.runtime.monitoring.secret_addresses import check_addresses
from product_classifier.runtime.ports import holder, is_free, listened_on, next_free
from product_classifier.runtime.supervision import Supervisor

DISK_WARN_GIB, DISK_FAIL_GIB = (
    15,
    3,
)  # both environments take 4 GiB, all photos with features and cache 10
MEMORY_WARN_GIB, MEMORY_FAIL_GIB = 6, 3  # training 4 GiB at most, Airflow and MLflow 1.2
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def check_python() -> Iterable[Finding]:
    """Checks the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    message = f"{version} at {sys.executable}"
    if not fits:
        message += ": install Python 3.11, 3.12 or 3.13 and run `make setup`"
    yield Finding("ok" if fits else "fail", "Python", message)


def check_environments(layout: Layout) -> Iterable[Finding]:
    """Checks that both environments are installed."""
    for program in (layout.program("product-classifier"), layout.airflow_program("airflow")):
        name = str(program.relative_to(layout.root))
        there = program.exists()
        yield Finding("ok" if there else "fail", name, "installed" if there else "run `make setup`")


def check_disk(layout: Layout) -> Iterable[Finding]:
    """Checks the free space where the checkout is."""
    free = shutil.disk_usage(layout.root).free / 2**30
    level: Literal["ok", "warn", "fail"] = "ok"
    advice = ""
    if free < DISK_WARN_GIB:
        level = "fail" if free < DISK_FAIL_GIB else "warn"
        advice = f"; the full catalogue needs {DISK_WARN_GIB} GiB: free some, or clone elsewhere"
    yield Finding(level, "Disk", f"{free:.0f} GiB free{advice}")


def check_memory() -> Iterable[Finding]:
    """Checks the memory that is there for training."""
    available = psutil.virtual_memory().available / 2**30
    level: Literal["ok", "warn", "fail"] = "ok"
    advice = ""
    if available < MEMORY_WARN_GIB:
        level = "fail" if available < MEMORY_FAIL_GIB else "warn"
        advice = f"; training wants {MEMORY_WARN_GIB} GiB: close other programs"
    yield Finding(level, "Memory", f"{available:.1f} GiB available{advice}")


def _published_ports(layout: Layout, settings: Settings) -> set[int]:
    """Gives the ports of this machine that lead into the running containers of our stack."""
    stack = Compose(layout, settings.compose_project_name)
    if not stack.values_file.exists():
        return set()
    try:
        containers = stack.containers()
    except RuntimeServiceError:
        return set()
    return {port for one in containers if one.alive for port in one.published_ports}


def check_ports(layout: Layout, settings: Settings) -> Iterable[Finding]:
    """Checks that our ports are free, or that a process or container of ours listens there."""
    ours = listened_on(Supervisor(layout).processes()) | _published_ports(layout, settings)
    for name, port in (
        ("AIRFLOW_PORT", settings.airflow_port),
        ("MLFLOW_PORT", settings.mlflow_port),
        ("AUTH_PORT", settings.auth_port),
        ("SERVE_PORT", settings.serve_port),
        *monitoring_ports(settings),
    ):
        if port in ours:
            yield Finding("ok", name, f"{port} is ours")
        elif is_free(port):
            yield Finding("ok", name, f"{port} is free")
        else:
            advice = f"set {name}={next_free(port)} in .env, or stop that program"
            yield Finding("fail", name, f"{port} is taken by {holder(port)}: {advice}")


def check_git(layout: Layout) -> Iterable[Finding]:
    """Checks for git and a checkout: DVC and the lineage of a run use it."""
    git = shutil.which("git")
    if git is None:
        yield Finding("fail", "git", "not found: install it with your system's package manager")
        return
    command = [git, "-C", str(layout.root), "rev-parse", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode == 0:
        yield Finding("ok", "git", f"commit {result.stdout.strip()[:12]}")
    else:
        reason = (result.stderr.strip().splitlines() or ["no commit yet"])[0]
        yield Finding("warn", "git", f"runs will carry no commit: {reason}")


def check_engine() -> Iterable[Finding]:
    """Looks for a container engine; without one the pipeline runs as processes."""
    engine = find_engine()
    if engine.problem is None:
        versions = f"Docker Engine {engine.version}, Compose {engine.compose}"
        yield Finding("ok", "Container engine", versions)
    else:
        message = f"{engine.problem}; the process runtime needs none"
        yield Finding("ok", "Container engine", message)


def check_monitoring(settings: Settings) -> Iterable[Finding]:
    """Looks for the monitoring's programs, and whether alerts reach anybody."""
    if settings.monitoring == "off":
        yield Finding("ok", "Monitoring", "off, by MONITORING")
        return
    runtime = settings.pipeline_runtime
    in_containers = runtime == "docker" or (runtime == "auto" and find_engine().problem is None)
    missing = [] if in_containers else missing_programs(find_programs())
    if missing:
        level: Literal["ok", "warn", "fail"] = "fail" if settings.monitoring == "on" else "warn"
        yield Finding(level, "Monitoring", install_hint(missing))
    try:
        receivers = Receivers.from_settings(settings).names()
    except ConfigurationError as error:
        yield Finding("fail", "Alerts", str(error))
        return
    advice = ""
    if len(receivers) < 2:
        advice = " alone: nobody is told; see ALERT_WEBHOOK_URL in .env.example"
    yield Finding("ok", "Alerts", f"go to {', '.join(receivers)}{advice}")
    if not in_containers:
        yield from check_addresses(settings)


def monitoring_ports(settings: Settings) -> list[tuple[str, int]]:
    """Lists the monitoring's ports by their setting, where it is wanted."""
    if settings.monitoring == "off":
        return []
    fields = [name for name in MonitoringSettings.model_fields if name.endswith("_port")]
    tcp = [name for name in fields if name != "statsd_port"]
    return [(name.upper(), getattr(settings, name)) for name in tcp]


def _secrets(settings: Settings) -> dict[str, str]:
    fields = (
        "airflow_admin_password",
        "airflow_trigger_password",
        "admin_password",
        "smoke_password",
        "test_user_password",
        "dagshub_token",
        "mlflow_tracking_password",
        "aws_secret_access_key",
        "alert_smtp_password",
        "grafana_admin_password",
    )
    return {
        name.upper(): value.get_secret_value()
        for name in fields
        if (value := getattr(settings, name, None)) is not None
    }


def check_settings(layout: Layout, settings: Settings) -> Iterable[Finding]:
    """Checks credentials, placeholders, AIRFLOW_UID and PROJECT_HOST_PATH."""
    for name, value in _secrets(settings).items():
        if is_placeholder(value):
            yield Finding("fail", name, "is a placeholder: set a value of your own in .env")
    yield from _check_admin(settings)
    for problem in settings.check_auth():
        yield Finding("warn", "Sign-in", problem)
    if layout.dotenv.exists() and layout.dotenv.stat().st_mode & 0o077:
        yield Finding("warn", ".env", "others can read it: run `chmod 600 .env`")
    if settings.airflow_uid == 0:
        yield Finding(
            "warn", "AIRFLOW_UID", "0 is root; containers should not be: `id -u` gives yours"
        )
    path = settings.project_host_path
    if path is not None and not (path / "dvc.yaml").is_file():
        message = f"{path} is no checkout of this project; {layout.root} is used instead"
        yield Finding("warn", "PROJECT_HOST_PATH", message)
    source = settings.data_source
    if source not in ("sample", "rakuten") and "://" not in source and not Path(source).exists():
        yield Finding("fail", "DATA_SOURCE", f"{source} does not exist")
    else:
        yield Finding("ok", "DATA_SOURCE", source)


def _check_admin(settings: Settings) -> Iterable[Finding]:
    if settings.admin_password is None:
        yield Finding("ok", "ADMIN_PASSWORD", "not set yet: `make start` generates it")
        return
    password = settings.admin_password.get_secret_value()
    long_enough = len(password) >= MIN_PASSWORD_CHARACTERS
    if not long_enough or len(password.encode()) > MAX_PASSWORD_BYTES:
        message = f"must have {MIN_PASSWORD_CHARACTERS} characters to {MAX_PASSWORD_BYTES} bytes"
        yield Finding("fail", "ADMIN_PASSWORD", message)
    else:
        yield Finding("ok", "ADMIN_PASSWORD", f"set, for {settings.admin_user}")


def examine(layout: Layout) -> list[Finding]:
    """Runs every check; one that can't run because settings are wrong says so instead."""
    checks: list[Callable[[], Iterable[Finding]]] = [
        check_python,
        lambda: check_environments(layout),
        lambda: check_disk(layout),
        check_memory,
        lambda: check_git(layout),
        check_engine,
    ]
    try:
        settings = get_settings()
    except ConfigurationError as error:
        checks.append(lambda error=error: [Finding("fail", "Settings", str(error))])  # type: ignore[misc]
    else:
        checks += [
            lambda: check_ports(layout, settings),
            lambda: check_settings(layout, settings),
            lambda: check_monitoring(settings),
            lambda: check_dagshub(settings),
        ]
    return [finding for check in checks for finding in check()]


def print_findings(findings: list[Finding], console: Console) -> bool:
    """Prints the report; True where nothing is broken."""
    for finding in findings:
        level = f"[{_STYLES[finding.level]}]{finding.level:4}[/]"
        console.print(
            f"{level}  {escape(finding.subject)}: {escape(finding.message)}", soft_wrap=True
        )
    return all(finding.level != "fail" for finding in findings)
