"""The environment contract: what a stage's process or container is given, and nothing else.

Airflow's own variables (its database, its signing keys) never reach a stage. The values are read
when a task runs, not when the DAG is parsed, and they are no template: nothing of it shows in
Airflow's UI.
"""

import os
from collections.abc import Mapping

# The project's settings: the fields of core/settings.py in capitals. A test holds the two to each
# other.
SETTINGS = (
    "ACCESS_TOKEN_EXPIRE_MINUTES",
    "ADMIN_PASSWORD",
    "ADMIN_USER",
    "AIRFLOW_ADMIN_USER",
    "AIRFLOW_API_URL",
    "AIRFLOW_PORT",
    "AIRFLOW_TRIGGER_PASSWORD",
    "AIRFLOW_TRIGGER_USER",
    "AIRFLOW_UID",
    "ALGORITHM",
    "ANONYMOUS_RATE_LIMIT",
    "AUTH_DATABASE_URL",
    "AUTH_DATA_PATH",
    "AUTH_HOST",
    "AUTH_PORT",
    "AUTH_SERVICE_LOGGER_PATH",
    "AUTH_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "BEST_WEIGHTS_PATH",
    "BEST_WEIGHTS_PATH_PKL",
    "BUNDLE_SOURCE",
    "CONCATENATED_MODEL_PATH",
    "CORS_ALLOW_ORIGINS",
    "DAGSHUB_REPOSITORY",
    "DAGSHUB_TOKEN",
    "DAGSHUB_URL",
    "DAGSHUB_USERNAME",
    "DATASET_PATH",
    "DATA_PATH",
    "DATA_SOURCE",
    "DOWNLOAD_ATTEMPTS",
    "DOWNLOAD_TIMEOUT_SECONDS",
    "DRIFT_WINDOW_PRODUCTS",
    "DVC_LOCK_WAIT_SECONDS",
    "DVC_REMOTE_URL",
    "DVC_S3_ENDPOINT_URL",
    "DVC_TIMEOUT_SECONDS",
    "IMAGES_PATH",
    "IMPORT_DATA_LOGGER_PATH",
    "INFERENCE_QUEUE",
    "INFERENCE_WORKERS",
    "LOGIN_LOCKOUT_FAILURES",
    "LOGIN_LOCKOUT_SECONDS",
    "LOGIN_LOCKOUT_WINDOW_SECONDS",
    "LOGIN_QUEUE",
    "LOG_LEVEL",
    "LSTM_MODEL_PATH",
    "MAPPER_PATH",
    "MAPPER_PATH_PKL",
    "MLFLOW_BUNDLE",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_PORT",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_UPLOAD_TIMEOUT_SECONDS",
    "PIPELINE_RUNTIME",
    "PREDICTIONS_PATH",
    "PREDICT_BATCH_RATE_LIMIT",
    "PREDICT_RATE_LIMIT",
    "PROJECT_HOST_PATH",
    "RAKUTEN_BASE_URL",
    "REDIS_URL",
    "REFRESH_TOKEN_EXPIRE_DAYS",
    "REQUEST_LOG_ENTRIES",
    "SECRET_KEY",
    "SERVE_HOST",
    "SERVE_PORT",
    "SERVE_URL",
    "SERVING_LOGGER_PATH",
    "SHUTDOWN_DELAY_SECONDS",
    "SHUTDOWN_GRACE_SECONDS",
    "SMOKE_PASSWORD",
    "SMOKE_USER",
    "TEST_MODEL_LOGGER_PATH",
    "TEST_USER",
    "TEST_USER_FULLNAME",
    "TEST_USER_PASSWORD",
    "TOKENIZER_CONFIG_PATH",
    "TRAIN_MODEL_LOGGER_PATH",
    "TRUSTED_PROXIES",
    "VGG16_MODEL_PATH",
    "WORKSPACE_SYNC",
)

# What any program of this machine needs: paths, language, proxies, certificates, threads,
# accelerators.
MACHINE = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
MACHINE_PREFIXES = ("LC_", "SSL_", "XDG_", "OMP_", "TF_", "KERAS_", "CUDA_", "NVIDIA_", "GIT_")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE")

# No program of ours reports its use to anybody.
QUIET = {"DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}


def settings_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Gives the settings that are set, as a container gets them."""
    source = os.environ if environment is None else environment
    return {name: source[name] for name in SETTINGS if source.get(name)} | QUIET


def process_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Gives the settings and what a local process needs of this machine."""
    source = os.environ if environment is None else environment
    machine = {
        name: value
        for name, value in source.items()
        if name in MACHINE
        or name.upper() in PROXIES
        or name.startswith(MACHINE_PREFIXES)
        or name.startswith("PRODUCT_CLASSIFIER_")
    }
    return machine | settings_environment(source) | {"PYTHONUNBUFFERED": "1"}


# What a container on the project's network needs besides, where the worker has it.
_CONTAINER_MACHINE = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "TZ")
_CONTAINER_PREFIXES = ("OMP_", "TF_", "KERAS_")
# Of the machine that the worker is on; in a container they would only mislead.
_OF_THE_HOST = {"PROJECT_HOST_PATH", "PIPELINE_RUNTIME", "AIRFLOW_UID"}

# Secrets of the services: no stage reads them, so none is given them.
SERVICE_SECRETS = {
    "ADMIN_PASSWORD",
    "AIRFLOW_TRIGGER_PASSWORD",
    "AUTH_DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "SMOKE_PASSWORD",
    "TEST_USER_PASSWORD",
}
# Secrets of the data's and the model's stores: `smoke` reads neither.
STORE_SECRETS = {"AWS_SECRET_ACCESS_KEY", "DAGSHUB_TOKEN", "MLFLOW_TRACKING_PASSWORD"}

# What each service reads, as in runtime/api_services.py; a test holds the two to each other. Files
# that a service would log to are left out: its container is read-only, and the engine keeps its
# output.
_BOTH_SERVICES = {
    "ALGORITHM",
    "ANONYMOUS_RATE_LIMIT",
    "CORS_ALLOW_ORIGINS",
    "LOG_LEVEL",
    "SHUTDOWN_DELAY_SECONDS",
    "SHUTDOWN_GRACE_SECONDS",
    "TRUSTED_PROXIES",
}
SERVICE_SETTINGS = {
    "auth": _BOTH_SERVICES
    | {
        "ACCESS_TOKEN_EXPIRE_MINUTES",
        "ADMIN_PASSWORD",
        "ADMIN_USER",
        "AUTH_DATABASE_URL",
        "AUTH_DATA_PATH",
        "AUTH_HOST",
        "AUTH_PORT",
        "LOGIN_LOCKOUT_FAILURES",
        "LOGIN_LOCKOUT_SECONDS",
        "LOGIN_LOCKOUT_WINDOW_SECONDS",
        "LOGIN_QUEUE",
        "REFRESH_TOKEN_EXPIRE_DAYS",
        "SECRET_KEY",
        "SMOKE_PASSWORD",
        "SMOKE_USER",
        "TEST_USER",
        "TEST_USER_FULLNAME",
        "TEST_USER_PASSWORD",
    },
    "serve": _BOTH_SERVICES
    | {
        "AIRFLOW_API_URL",
        "AIRFLOW_TRIGGER_PASSWORD",
        "AIRFLOW_TRIGGER_USER",
        "AUTH_URL",
        "BUNDLE_SOURCE",
        "DRIFT_WINDOW_PRODUCTS",
        "INFERENCE_QUEUE",
        "INFERENCE_WORKERS",
        "PREDICT_BATCH_RATE_LIMIT",
        "PREDICT_RATE_LIMIT",
        "REDIS_URL",
        "REQUEST_LOG_ENTRIES",
        "SECRET_KEY",
        "SERVE_HOST",
        "SERVE_PORT",
        "SERVE_URL",
    },
}
# serve reads the remote's address and keys where its bundle comes from there (BUNDLE_SOURCE=dvc).
REMOTE_SETTINGS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "DAGSHUB_REPOSITORY",
    "DAGSHUB_TOKEN",
    "DAGSHUB_URL",
    "DAGSHUB_USERNAME",
    "DVC_LOCK_WAIT_SECONDS",
    "DVC_REMOTE_URL",
    "DVC_S3_ENDPOINT_URL",
    "DVC_TIMEOUT_SECONDS",
    "MLFLOW_TRACKING_URI",
}


def _container_machine(source: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in source.items()
        if name.upper() in _CONTAINER_MACHINE or name.startswith(_CONTAINER_PREFIXES)
    }


def stage_environment(action: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Gives what the container of a stage's command is told: no secret that it does not read."""
    source = os.environ if environment is None else environment
    smoke = (SERVICE_SECRETS - {"SMOKE_PASSWORD"}) | STORE_SECRETS
    hidden = smoke if action == "smoke" else SERVICE_SECRETS
    settings = settings_environment(source)
    kept = {n: v for n, v in settings.items() if n not in hidden | _OF_THE_HOST}
    return _container_machine(source) | kept


def service_environment(name: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Gives what the container of auth or serve is told: the settings that it reads."""
    source = os.environ if environment is None else environment
    settings = settings_environment(source)
    read = set(SERVICE_SETTINGS[name])
    if settings.get("ALGORITHM") != "HS256":
        read -= {"SECRET_KEY"}  # nothing but HS256 signs with it
    if name == "serve" and settings.get("BUNDLE_SOURCE") == "dvc":
        read |= REMOTE_SETTINGS
    kept = {n: v for n, v in settings.items() if n in read}
    return _container_machine(source) | kept | QUIET
