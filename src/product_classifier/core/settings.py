"""Settings: what changes the deployment, from the environment and `.env`. Hyperparameters are in `params.yaml`.

Every field is listed in `.env.example` with its unit and default, and a test holds the two to each other. Several
names come from an earlier system whose `.env` files keep working; none of them is required.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from product_classifier.core.errors import ConfigurationError

# An empty value in `.env` (`NAME=`) means "not set", as people write it there.
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
OptionalText = Annotated[str | None, BeforeValidator(lambda value: value or None)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)]


def _written_as(pattern: str, example: str) -> BeforeValidator:
    """Checks how a value is written; an empty one is not set."""

    def check(value: str | None) -> str | None:
        if value and not re.fullmatch(pattern, value):
            raise ValueError(f"expected something like {example}")
        return value or None

    return BeforeValidator(check)


def dagshub_slug(value: str | None) -> str | None:
    """Takes owner/name out of what people copy: owner/name, the page's address, git's, MLflow's.

    Raises:
        ValueError: it is none of these.
    """
    if not value:
        return None
    path = urlsplit(value).path if "://" in value else value
    slug = re.sub(r"\.(git|mlflow|s3)$", "", path.strip().strip("/"))
    if not _DAGSHUB_SLUG.fullmatch(slug):
        raise ValueError("expected owner/name of a repository on DagsHub")
    return slug


DagsHubSlug = Annotated[str | None, BeforeValidator(dagshub_slug)]
DAGSHUB_URL = "https://dagshub.com"
RAKUTEN_URL = (
    "https://huggingface.co/datasets/ndiguesene/ml-datasets-image-rakuten-ecommerce/resolve/main"
)

_DAGSHUB_SLUG = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_DAGSHUB_MLFLOW = re.compile(r"/(?P<repository>[^/]+/[^/]+)\.mlflow/?")
_LOGGER_FIELDS = {
    "ingest": "import_data_logger_path",
    "train": "train_model_logger_path",
    "predict": "test_model_logger_path",
    "auth": "auth_service_logger_path",
    "serve": "serving_logger_path",
}

MIN_KEY_BYTES = 32  # RFC 7518, section 3.2: a key at least as long as the hash
MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_BYTES = 72
_PLACEHOLDER = re.compile(
    r"^(<.*>|\[.*\]|\{.*\}|x+|\*+|\.+)$|change[-_ ]?(me|this|it)|your[-_ ]|placeholder|example"
    r"|^(secret|secret[-_ ]?key|password|changeme|todo|test|admin)$",
    re.IGNORECASE,
)


def is_placeholder(secret: str) -> bool:
    """Says whether a secret is only what an example file had in its place."""
    return _PLACEHOLDER.search(secret.strip()) is not None


class _Base(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )


class DataSettings(_Base):
    """Where the catalogue comes from and where its parts are read and left."""

    data_source: str = "sample"
    rakuten_base_url: str = RAKUTEN_URL
    download_timeout_seconds: float = Field(default=60, gt=0)
    download_attempts: int = Field(default=6, ge=1, le=20)
    data_path: OptionalPath = None
    dataset_path: OptionalPath = None
    images_path: OptionalPath = None
    predictions_path: OptionalPath = None


class ExportSettings(_Base):
    """Paths at which users of the earlier system expect the champion's parts; a copy is left at each one set."""

    tokenizer_config_path: OptionalPath = None
    lstm_model_path: OptionalPath = None
    vgg16_model_path: OptionalPath = None
    best_weights_path: OptionalPath = None
    best_weights_path_pkl: OptionalPath = None
    mapper_path: OptionalPath = None
    mapper_path_pkl: OptionalPath = None
    concatenated_model_path: OptionalPath = None


class TrackingSettings(_Base):
    """The MLflow server and the DVC remote, local or on DagsHub."""

    mlflow_tracking_uri: OptionalText = None
    mlflow_tracking_username: OptionalText = None
    mlflow_tracking_password: OptionalSecret = None
    mlflow_experiment_name: str = "ProductCodeClassifier"
    mlflow_bundle: Literal["light", "full"] = "light"
    mlflow_upload_timeout_seconds: float = Field(default=300, gt=0)
    dagshub_url: Annotated[str, BeforeValidator(lambda value: str(value).rstrip("/"))] = DAGSHUB_URL
    dagshub_username: OptionalText = None
    dagshub_token: OptionalSecret = None
    dagshub_repository: DagsHubSlug = None
    dvc_remote_url: OptionalText = None
    dvc_s3_endpoint_url: OptionalText = None
    dvc_timeout_seconds: float = Field(default=3600, gt=0)
    dvc_lock_wait_seconds: float = Field(default=600, gt=0)
    aws_access_key_id: OptionalText = None
    aws_secret_access_key: OptionalSecret = None
    workspace_sync: Literal["none", "dvc"] = "none"

    def is_on_dagshub(self, url: str | None) -> bool:
        """Says whether an address is on the DagsHub of DAGSHUB_URL: nobody else is shown the token."""
        here, home = urlsplit(url or ""), urlsplit(self.dagshub_url)
        host = here.netloc.rpartition("@")[2].lower()
        return (here.scheme, host) == (home.scheme, home.netloc.lower())

    def dagshub_slug(self) -> str | None:
        """Names the DagsHub repository as owner/name, from its own setting or from an MLflow URI on DagsHub."""
        if self.dagshub_repository:
            return self.dagshub_repository
        if not self.is_on_dagshub(self.mlflow_tracking_uri):
            return None
        match = _DAGSHUB_MLFLOW.fullmatch(urlsplit(self.mlflow_tracking_uri or "").path)
        return match["repository"] if match else None

    def tracking_uri(self, default: str) -> str:
        """Gives the MLflow server's address: the one set, DagsHub's, or `default`."""
        if self.mlflow_tracking_uri:
            return self.mlflow_tracking_uri
        slug = self.dagshub_slug()
        return f"{self.dagshub_url}/{slug}.mlflow" if slug and self.dagshub_token else default

    def tracking_credentials(self) -> tuple[str, str] | None:
        """Gives user name and password for the MLflow server, or None where it asks for none."""
        if self.mlflow_tracking_username and self.mlflow_tracking_password:
            return self.mlflow_tracking_username, self.mlflow_tracking_password.get_secret_value()
        if self.dagshub_token and self.is_on_dagshub(self.tracking_uri("")):
            # DagsHub takes the token as password; any non-empty name does.
            return self.dagshub_username or "token", self.dagshub_token.get_secret_value()
        return None

    def remote_url(self, default: str) -> str:
        """Gives the DVC remote's address: the one set, DagsHub's bucket, or `default`."""
        if self.dvc_remote_url:
            return self.dvc_remote_url
        return "s3://dvc" if self.dagshub_slug() and self.dagshub_token else default

    def s3_credentials(self) -> dict[str, str]:
        """Gives DVC's S3 options (endpointurl, access_key_id, secret_access_key) as far as they are set."""
        options: dict[str, str] = {}
        slug = self.dagshub_slug()
        if self.dvc_s3_endpoint_url:
            options["endpointurl"] = self.dvc_s3_endpoint_url
        elif slug and self.dagshub_token and not self.dvc_remote_url:
            options["endpointurl"] = f"{self.dagshub_url}/{slug}.s3"
        if self.aws_access_key_id and self.aws_secret_access_key:
            options["access_key_id"] = self.aws_access_key_id
            options["secret_access_key"] = self.aws_secret_access_key.get_secret_value()
        elif self.dagshub_token and self.is_on_dagshub(options.get("endpointurl")):
            token = self.dagshub_token.get_secret_value()
            options |= {"access_key_id": token, "secret_access_key": token}
        return options


class AuthSettings(_Base):
    """Who may sign in, and how tokens are signed."""

    secret_key: OptionalSecret = None
    algorithm: Literal["ES256", "HS256"] = "ES256"
    access_token_expire_minutes: int = Field(default=30, ge=1, le=1440)
    refresh_token_expire_days: int = Field(default=7, ge=1, le=90)
    admin_user: str = "admin"
    admin_password: OptionalSecret = None
    test_user: OptionalText = None
    test_user_fullname: OptionalText = None
    test_user_password: OptionalSecret = None
    smoke_user: str = "smoke"
    smoke_password: OptionalSecret = None
    auth_host: str = "127.0.0.1"
    auth_port: int = Field(default=8011, ge=1024, le=65535)
    auth_data_path: Path = Path(".state/auth")
    auth_database_url: OptionalSecret = None
    login_lockout_failures: int = Field(default=3, ge=0, le=100)
    login_lockout_window_seconds: int = Field(default=120, ge=1, le=86_400)
    login_lockout_seconds: int = Field(default=300, ge=1, le=86_400)
    login_queue: int = Field(default=8, ge=1, le=1000)

    @property
    def token_lifetime_seconds(self) -> int:
        """How long a token is valid."""
        return self.access_token_expire_minutes * 60

    @property
    def test_user_name(self) -> str | None:
        """Full name of the user that TEST_USER makes, or None where there is none."""
        return (self.test_user_fullname or self.test_user) if self.test_user else None

    def check_auth(self) -> list[str]:
        """Lists what stands against signing tokens and making the test user; shows no secret."""
        return [*self._check_signing(), *self._check_test_user()]

    def _check_signing(self) -> Iterator[str]:
        if self.algorithm != "HS256":
            return
        key = self.secret_key.get_secret_value() if self.secret_key else ""
        if not key:
            yield "SECRET_KEY is missing: ALGORITHM=HS256 signs with it. ES256 needs none."
        elif is_placeholder(key):
            yield "SECRET_KEY is a placeholder: set one from `openssl rand -hex 32`."
        elif len(key.encode()) < MIN_KEY_BYTES:
            yield (
                f"SECRET_KEY must have at least {MIN_KEY_BYTES} bytes for HS256. "
                f"It has {len(key.encode())}."
            )

    def _check_test_user(self) -> Iterator[str]:
        password = self.test_user_password.get_secret_value() if self.test_user_password else ""
        if self.test_user and not password:
            yield "TEST_USER is set without TEST_USER_PASSWORD: auth does not start."
        if not self.test_user and (password or self.test_user_fullname):
            yield "TEST_USER_PASSWORD or TEST_USER_FULLNAME is set without TEST_USER: auth does not start."
        if password and (is_placeholder(password) or len(password) < MIN_PASSWORD_CHARACTERS):
            yield (
                "TEST_USER_PASSWORD is a placeholder or has fewer than "
                f"{MIN_PASSWORD_CHARACTERS} characters."
            )
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            yield f"TEST_USER_PASSWORD has more than {MAX_PASSWORD_BYTES} bytes, bcrypt's limit."


class ServeSettings(_Base):
    """The prediction API, and what it talks to."""

    serve_host: str = "127.0.0.1"
    serve_port: int = Field(default=8000, ge=1024, le=65535)
    auth_url: str = "http://127.0.0.1:8011"
    serve_url: OptionalText = None
    bundle_source: OptionalText = None
    predict_rate_limit: str = "10/minute"
    predict_batch_rate_limit: str = "200/minute"
    anonymous_rate_limit: str = "60/minute"
    redis_url: OptionalSecret = None
    request_log_entries: int = Field(default=1000, ge=0, le=100_000)
    inference_workers: int = Field(default=0, ge=0, le=256)
    inference_queue: int = Field(default=64, ge=1, le=10_000)
    drift_window_products: int = Field(default=500, ge=100, le=100_000)
    shutdown_grace_seconds: int = Field(default=30, ge=1, le=600)
    shutdown_delay_seconds: float = Field(default=0, ge=0, le=60)
    cors_allow_origins: OptionalText = None
    trusted_proxies: OptionalText = None
    airflow_api_url: OptionalText = None
    airflow_trigger_user: str = "trigger"
    airflow_trigger_password: OptionalSecret = None


class RuntimeSettings(_Base):
    """Where and how the pipeline's own programs run."""

    pipeline_runtime: Literal["auto", "docker", "process"] = "auto"
    airflow_port: int = Field(default=8080, ge=1024, le=65535)
    mlflow_port: int = Field(default=5000, ge=1024, le=65535)
    airflow_admin_user: str = "admin"
    airflow_admin_password: OptionalSecret = None
    airflow_uid: int | None = Field(default=None, ge=0)
    project_host_path: OptionalPath = None


class ContainerSettings(_Base):
    """The container runtime: names, and what a stage's container may use. No stage reads them itself."""

    compose_project_name: str = "product-classifier"
    network_name: str = "product_classier"
    image_prefix: str = "product-classifier"
    image_tag: OptionalText = None
    stage_user: Annotated[str | None, _written_as(r"\d+:\d+", "1000:1000")] = None
    data_host_paths: OptionalText = None
    train_gpus: Annotated[str | None, _written_as(r"all|[1-9]\d*", "all or 1")] = None
    stage_memory_limit: Annotated[str | None, _written_as(r"\d+[kmgKMG]?", "8g")] = None
    stage_cpus: float | None = Field(default=None, gt=0)
    airflow_workers: int = Field(default=1, ge=1, le=100)
    airflow_worker_concurrency: int = Field(default=4, ge=1, le=100)
    airflow_worker_queues: str = "default,ingest,train,predict,auth,serve"


_HTTP = r"https?://[^\s/]+(/\S*)?"
_EMAILS = r"[^\s@,]+@[^\s@,]+( *, *[^\s@,]+@[^\s@,]+)*"
_CRON = r"@(hourly|daily|weekly|monthly|quarterly|yearly)|[\w*/,#-]+( +[\w*/,#-]+){4}"


class MonitoringSettings(_Base):
    """Prometheus and its neighbours: ports of this machine, who is told of alerts, what counts as stale."""

    monitoring: Literal["auto", "on", "off"] = "auto"
    prometheus_port: int = Field(default=9090, ge=1024, le=65535)
    alertmanager_port: int = Field(default=9093, ge=1024, le=65535)
    alert_log_port: int = Field(default=9094, ge=1024, le=65535)
    node_exporter_port: int = Field(default=9100, ge=1024, le=65535)
    pipeline_exporter_port: int = Field(default=9101, ge=1024, le=65535)
    airflow_exporter_port: int = Field(default=9102, ge=1024, le=65535)
    statsd_port: int = Field(default=9125, ge=1024, le=65535)
    grafana_port: int = Field(default=3000, ge=1024, le=65535)
    prometheus_retention: Annotated[
        str, BeforeValidator(lambda value: value or "15d"), _written_as(r"[1-9]\d*[hdwy]", "15d")
    ] = "15d"
    # Secrets too: whoever knows a webhook's address may post there.
    alert_webhook_url: Annotated[OptionalSecret, _written_as(_HTTP, "https://host/path")] = None
    alert_heartbeat_url: Annotated[OptionalSecret, _written_as(_HTTP, "https://host/path")] = None
    alert_slack_url: Annotated[OptionalSecret, _written_as(_HTTP, "https://host/path")] = None
    alert_slack_channel: OptionalText = None
    alert_runbooks_url: Annotated[str | None, _written_as(_HTTP, "https://host/runbooks.md")] = None
    alert_email_to: Annotated[str | None, _written_as(_EMAILS, "you@example.org")] = None
    alert_email_from: Annotated[str | None, _written_as(_EMAILS, "alerts@example.org")] = None
    alert_smtp_address: Annotated[str | None, _written_as(r"\S+:\d+", "mail.example.org:587")] = (
        None
    )
    alert_smtp_user: OptionalText = None
    alert_smtp_password: OptionalSecret = None
    grafana_admin_password: OptionalSecret = None
    pipeline_schedule: Annotated[str | None, _written_as(_CRON, "@daily or 0 3 * * *")] = None
    pipeline_stale_after_hours: float | None = Field(default=None, gt=0)


class Settings(
    DataSettings,
    ExportSettings,
    TrackingSettings,
    AuthSettings,
    ServeSettings,
    RuntimeSettings,
    ContainerSettings,
    MonitoringSettings,
):
    """All settings of the pipeline's stages and of the embedded run."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    serving_logger_path: OptionalPath = None
    train_model_logger_path: OptionalPath = None
    test_model_logger_path: OptionalPath = None
    import_data_logger_path: OptionalPath = None
    auth_service_logger_path: OptionalPath = None

    def logger_path(self, stage: str) -> Path | None:
        """Gives the log file of a stage, or None where it only logs to stdout."""
        field = _LOGGER_FIELDS.get(stage)
        return getattr(self, field) if field else None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Reads the settings once per process.

    Raises:
        ConfigurationError: a value is not allowed; the message names it and never repeats a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors(include_input=False)
        ]
        raise ConfigurationError(
            "Settings (environment or .env) are not usable. " + "; ".join(lines)
        ) from None
