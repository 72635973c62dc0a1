"""auth and serve as services of the embedded run: what each is started with, and no more.

Both are given their settings in the environment, each only those that it reads, and work in a folder without a `.env`:
so auth never sees the keys of the DVC remote, and serve never sees a user's password. serve's folder is inside the
workspace, since it finds `models/champion` from there.
"""

from collections.abc import Iterable
from pathlib import Path

from pydantic import SecretStr

import product_classifier
from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.settings import AuthSettings, ServeSettings, Settings
from product_classifier.runtime.images import read_commit
from product_classifier.runtime.layout import STATE_VARIABLE, Layout
from product_classifier.runtime.services import (
    Service,
    core_services,
    folder_fingerprint,
    lock_fingerprint,
    machine_environment,
    stage_workspace,
)

AUTH, SERVE = "auth", "serve"
API_SERVICES = (AUTH, SERVE)
STOP_MARGIN_SECONDS = 10  # beyond SHUTDOWN_GRACE_SECONDS: a service that drains is not killed
LOOPBACK = "127.0.0.1"
USERS_FILE = "auth.db"  # auth's SQLite database, in AUTH_DATA_PATH

_SHARED = {"algorithm", "anonymous_rate_limit", "cors_allow_origins"}
_SHARED |= {"log_level", "shutdown_delay_seconds", "shutdown_grace_seconds", "trusted_proxies"}
_AUTH = {*AuthSettings.model_fields, *_SHARED, "auth_service_logger_path"}
_SERVE = {*ServeSettings.model_fields, *_SHARED, "serving_logger_path"}
# A host whose bundle comes from the DVC remote needs the remote's address and keys.
_REMOTE = {"dvc_remote_url", "dvc_s3_endpoint_url", "dvc_timeout_seconds", "dvc_lock_wait_seconds"}
_REMOTE |= {"aws_access_key_id", "aws_secret_access_key", "dagshub_token", "dagshub_repository"}
_REMOTE |= {"dagshub_url", "dagshub_username", "mlflow_tracking_uri"}
# Parts of the package that a service runs: a change there restarts it.
_CODE = {
    AUTH: ("cli.py", "commands/auth.py", "auth", "core", "web"),
    SERVE: ("cli.py", "commands/serve.py", "core", "features", "modeling", "serve", "web"),
}


def local_url(host: str, port: int) -> str:
    """Gives the address at which this machine reaches a service that listens on `host`."""
    everywhere = {"0.0.0.0": LOOPBACK, "::": "[::1]", "::1": "[::1]"}  # noqa: S104
    return f"http://{everywhere.get(host, host)}:{port}"


def auth_url(settings: Settings) -> str:
    """Gives auth's address: AUTH_URL where it was changed, else where the embedded run's auth listens."""
    if settings.auth_url != ServeSettings.model_fields["auth_url"].default:
        return settings.auth_url
    return local_url(settings.auth_host, settings.auth_port)


def serve_url(settings: Settings) -> str:
    """Gives serve's address: SERVE_URL, else where it listens on this machine."""
    return settings.serve_url or local_url(settings.serve_host, settings.serve_port)


def _values(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if value is not None:
            found[name.upper()] = str(value)
    return found


def _without_needless_key(settings: Settings, names: set[str]) -> set[str]:
    return names if settings.algorithm == "HS256" else names - {"secret_key"}


def _absolute(environment: dict[str, str], base: Path, *names: str) -> dict[str, str]:
    # The service works in another folder than the one that the setting was written for.
    return {n: str(base / v) if n in names else v for n, v in environment.items()}


def _service(
    layout: Layout, settings: Settings, name: str, directory: Path, environment: dict[str, str]
) -> Service:
    package = Path(product_classifier.__file__).parent
    host, port = getattr(settings, f"{name}_host"), getattr(settings, f"{name}_port")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Service(
        name,
        (str(layout.program("product-classifier")), name),
        directory,
        {
            **environment,
            **lock_fingerprint(layout.root / "uv.lock"),
            "PRODUCT_CLASSIFIER_CODE": folder_fingerprint(package, *_CODE[name]),
            STATE_VARIABLE: str(layout.state),
            "PYTHONUNBUFFERED": "1",
        },
        # For `/metrics`. Not among what a change of restarts a service: code and packages are.
        machine=machine_environment()
        | {"PRODUCT_CLASSIFIER_COMMIT": read_commit(layout.root) or "unknown"},
        port=port,
        port_setting=f"{name.upper()}_PORT",
        url=local_url(host, port).replace(LOOPBACK, "localhost"),
        stop_seconds=round(settings.shutdown_delay_seconds)
        + settings.shutdown_grace_seconds
        + STOP_MARGIN_SECONDS,
    )


def auth_service(layout: Layout, settings: Settings) -> Service:
    """Describes auth: users, signing keys, the first passwords; nothing of data or models."""
    names = _without_needless_key(settings, _AUTH)
    environment = _absolute(
        _values(settings, names), layout.root, "AUTH_DATA_PATH", "AUTH_SERVICE_LOGGER_PATH"
    )
    # serve hands the addresses of those on who sign in through it: it is the proxy to be believed.
    proxies = [settings.trusted_proxies, LOOPBACK]
    environment["TRUSTED_PROXIES"] = ",".join(p for p in proxies if p)
    return _service(layout, settings, AUTH, layout.auth_home, environment)


def serve_service(layout: Layout, settings: Settings) -> Service:
    """Describes serve: the networks and its neighbours' addresses; no user's password."""
    workspace = stage_workspace(layout, settings)
    remote = settings.bundle_source == "dvc"
    names = _without_needless_key(
        settings, _SERVE | {"secret_key"} | (_REMOTE if remote else set())
    )
    environment = _absolute(_values(settings, names), workspace, "SERVING_LOGGER_PATH")
    if settings.bundle_source and not remote and "://" not in settings.bundle_source:
        environment["BUNDLE_SOURCE"] = str(workspace / settings.bundle_source)
    environment["AUTH_URL"] = auth_url(settings)
    environment.setdefault("AIRFLOW_API_URL", f"http://{LOOPBACK}:{settings.airflow_port}")
    return _service(layout, settings, SERVE, workspace / ".state" / "serve", environment)


def api_service(layout: Layout, settings: Settings, name: str) -> Service:
    """Describes the service of a name in `API_SERVICES`."""
    return {AUTH: auth_service, SERVE: serve_service}[name](layout, settings)


def has_users(layout: Layout) -> bool:
    """Tells whether auth has made its first users here: from then on ADMIN_PASSWORD is not read."""
    return (layout.auth_home / USERS_FILE).exists()


def deployed_names(layout: Layout) -> list[str]:
    """Lists the services that the pipeline has deployed here, in the order of their start."""
    try:
        names = read_json(layout.deployed)
    except (FileNotFoundError, ValueError):
        return []
    return [name for name in API_SERVICES if isinstance(names, list) and name in names]


def remember_deployed(layout: Layout, name: str) -> None:
    """Notes that a service was deployed: from now on `start` brings it up again."""
    names = deployed_names(layout)
    if name not in names:
        write_json_atomic(layout.deployed, [*names, name])


def build_services(layout: Layout, settings: Settings) -> list[Service]:
    """Lists every service that `start` runs: the core ones, and what the pipeline deployed before."""
    deployed = [api_service(layout, settings, name) for name in deployed_names(layout)]
    return [*core_services(layout, settings), *deployed]
