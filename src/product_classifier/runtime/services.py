"""The programs of the embedded run: command, environment and folder of each."""

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from product_classifier.core.files import canonical_json, sha256_bytes, sha256_file
from product_classifier.core.settings import MonitoringSettings, Settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.dotenv import private_secret
from product_classifier.runtime.layout import STATE_VARIABLE, Layout

AIRFLOW_API, AIRFLOW_SCHEDULER = "airflow-api-server", "airflow-scheduler"
AIRFLOW_DAG_PROCESSOR, MLFLOW = "airflow-dag-processor", "mlflow"

# A task's token must outlive the longest task: training may take 36 hours (Airflow's default is 600
# s).
TASK_TOKEN_SECONDS = 48 * 3600

# What any program needs of this machine; the same list as the DAG hands to a stage.
MACHINE = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
MACHINE_PREFIXES = ("LC_", "SSL_", "XDG_", "OMP_", "TF_", "KERAS_", "CUDA_", "NVIDIA_", "GIT_")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE")
QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "SCARF_ANALYTICS": "false",
}


@dataclass(frozen=True)
class Service:
    """One supervised program."""

    name: str
    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(repr=False)  # holds secrets
    machine: Mapping[str, str] = field(default_factory=dict, repr=False)
    port: int | None = None
    port_setting: str | None = None
    url: str | None = None
    stop_seconds: int = 15

    def fingerprint(self) -> str:
        """Changes when the service has to be restarted; not with the shell's own variables."""
        content = [self.command, str(self.directory), sorted(self.environment.items())]
        return sha256_bytes(canonical_json(content))[:16]

    def specification(self) -> dict[str, object]:
        """Gives what the launcher reads."""
        return {
            "command": list(self.command),
            "directory": str(self.directory),
            "environment": {**self.machine, **self.environment},
        }


def machine_environment() -> dict[str, str]:
    """Picks what a program needs of this machine out of our own environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in MACHINE or name.upper() in PROXIES or name.startswith(MACHINE_PREFIXES)
    }


def stage_workspace(layout: Layout, settings: Settings) -> Path:
    """Gives the folder that stages work in: PROJECT_HOST_PATH or this checkout."""
    path = settings.project_host_path
    return path.resolve() if path is not None and (path / "dvc.yaml").is_file() else layout.root


def _exported_settings(layout: Layout, workspace: Path) -> dict[str, str]:
    # Stages read `.env` of their own folder, each time anew; only what is exported goes over the
    # environment. In another workspace there is no such file, so all of ours goes.
    source: dict[str, str | None] = {}
    if workspace != layout.root and layout.dotenv.exists():
        source.update(dotenv_values(layout.dotenv, interpolate=False))
    source.update(os.environ)
    others = {*MonitoringSettings.model_fields, "airflow_admin_password"}
    names = {name.upper() for name in set(Settings.model_fields) - others}
    return {name: value for name in sorted(names) if (value := source.get(name))}


def _fernet_key(secret: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode()


def airflow_environment(layout: Layout, settings: Settings) -> dict[str, str]:
    """Gives Airflow's configuration: SQLite, local executor, loopback only, two accounts."""
    home, port = layout.airflow_home, settings.airflow_port
    workspace = stage_workspace(layout, settings)
    options = {
        "CORE__DAGS_FOLDER": layout.dags,
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 3,  # each slot is a process kept ready; stages run one by one
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "CORE__AUTH_MANAGER": "pipeline_auth_manager.PipelineAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.airflow_admin_user}:admin,"
        f"{settings.airflow_trigger_user}:pipeline_trigger",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": home / "passwords.json",
        "CORE__FERNET_KEY": _fernet_key(private_secret(home / "fernet.secret")),
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__WORKERS": 1,
        "API__BASE_URL": f"http://localhost:{port}",
        "API__SECRET_KEY": private_secret(home / "api.secret"),
        "API_AUTH__JWT_SECRET": private_secret(home / "jwt.secret"),
        "EXECUTION_API__JWT_EXPIRATION_TIME": TASK_TOKEN_SECONDS,
        "LOGGING__BASE_LOG_FOLDER": home / "logs",
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 30,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 30,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 120,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": 10.0,
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        # Over UDP, so it does not matter whether anybody listens.
        "METRICS__STATSD_ON": "True",
        "METRICS__STATSD_HOST": "127.0.0.1",
        "METRICS__STATSD_PORT": settings.statsd_port,
        "METRICS__STATSD_PREFIX": "airflow",
        # monitoring/statsd/mapping.yml reads pool, DAG and task off these names.
        "METRICS__LEGACY_NAMES_ON": "True",
    }
    return {
        **_exported_settings(layout, workspace),
        **{f"AIRFLOW__{name}": str(value) for name, value in options.items()},
        **QUIET,
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(layout.airflow_config),
        "PIPELINE_RUNTIME": "process",
        # What tasks and runs leave for Prometheus; see airflow/dags/common/metrics.py.
        "PIPELINE_METRICS_PATH": str(Workspace(workspace).run_metrics),
        "PRODUCT_CLASSIFIER_WORKSPACE": str(workspace),
        "PRODUCT_CLASSIFIER_PROGRAM": str(layout.program("product-classifier")),
        STATE_VARIABLE: str(layout.state),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }


def lock_fingerprint(lock: Path) -> dict[str, str]:
    """Gives a variable that changes with the installed packages, so that they restart a service."""
    return {"PRODUCT_CLASSIFIER_LOCK": sha256_file(lock)[:16]} if lock.exists() else {}


def folder_fingerprint(folder: Path, *parts: str) -> str:
    """Hashes the files below a folder, or below some parts of it; caches do not count."""
    chosen = [folder / part for part in parts] or [folder]
    found = [p for part in chosen for p in ([part] if part.is_file() else part.rglob("*"))]
    files = sorted(p for p in found if p.is_file() and "__pycache__" not in p.parts)
    content = [[str(p.relative_to(folder)), sha256_bytes(p.read_bytes())] for p in files]
    return sha256_bytes(canonical_json(content))[:16]


def _airflow_services(layout: Layout, settings: Settings) -> list[Service]:
    lock = lock_fingerprint(layout.root / "airflow" / "uv.lock")
    config = {"PRODUCT_CLASSIFIER_CONFIG": folder_fingerprint(layout.airflow_config)}
    environment = airflow_environment(layout, settings) | lock | config
    machine = machine_environment()
    airflow = str(layout.airflow_program("airflow"))
    url = f"http://localhost:{settings.airflow_port}"
    # Changed DAG code restarts the parser, so that a run never starts from an old version of it.
    parsing = {
        **environment,
        "PIPELINE_SCHEDULE": settings.pipeline_schedule or "",
        "PRODUCT_CLASSIFIER_DAGS": folder_fingerprint(layout.dags),
    }

    def service(name: str, command: str, **options: object) -> Service:
        arguments = (airflow, *command.split())
        chosen = {"environment": environment, **options}
        home = layout.airflow_home
        return Service(name, arguments, home, machine=machine, **chosen)  # type: ignore[arg-type]

    return [
        service(
            AIRFLOW_API,
            "api-server",
            port=settings.airflow_port,
            port_setting="AIRFLOW_PORT",
            url=url,
        ),
        service(AIRFLOW_DAG_PROCESSOR, "dag-processor", environment=parsing),
        # The API server reads the task logs from disk: no log server on a port of its own.
        service(AIRFLOW_SCHEDULER, "scheduler --skip-serve-logs", stop_seconds=25),
    ]


def local_tracking_uri(settings: Settings) -> str:
    """Gives the address of the MLflow server that the embedded run starts."""
    return f"http://127.0.0.1:{settings.mlflow_port}"


def _mlflow_service(layout: Layout, settings: Settings) -> Service:
    command = (
        *(str(layout.program("mlflow")), "server", "--host", "127.0.0.1"),
        *("--port", str(settings.mlflow_port), "--workers", "1"),
        # Relative to the service's folder: a path with special characters is no part of an address.
        *("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./artifacts"),
        # Runs name the server's proxied store, so they survive a move of the checkout.
        *("--default-artifact-root", "mlflow-artifacts:/"),
    )
    environment = {
        **QUIET,
        **lock_fingerprint(layout.root / "uv.lock"),
        # Job execution costs 30 s at start and 8 processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        STATE_VARIABLE: str(layout.state),
        "PYTHONUNBUFFERED": "1",
    }
    return Service(
        *(MLFLOW, command, layout.mlflow_home, environment),
        machine=machine_environment(),
        port=settings.mlflow_port,
        port_setting="MLFLOW_PORT",
        url=f"http://localhost:{settings.mlflow_port}",
    )


def core_services(layout: Layout, settings: Settings) -> list[Service]:
    """Lists what the pipeline itself needs: Airflow; MLflow only where no other server is set."""
    local = local_tracking_uri(settings)
    tracking = [_mlflow_service(layout, settings)] if settings.tracking_uri(local) == local else []
    return [*tracking, *_airflow_services(layout, settings)]
