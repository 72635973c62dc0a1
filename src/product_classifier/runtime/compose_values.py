"""What docker-compose.yml is filled in with, besides `.env`: names, profiles, the image tag, who stages run as."""

import os
from pathlib import Path

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.runtime.images import image_tag
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.services import folder_fingerprint, stage_workspace

AIRFLOW, TRACKING, STORAGE, MONITORING = "airflow", "tracking", "storage", "monitoring"
LOCAL_REMOTE, LOCAL_ENDPOINT, LOCAL_MLFLOW = "s3://dvc", "http://s3:8333", "http://mlflow:5000"


def has_local_mlflow(settings: Settings) -> bool:
    """Tells whether the stack's own MLflow server is used: no other one is set."""
    return not settings.tracking_uri("")


def has_local_storage(settings: Settings) -> bool:
    """Tells whether DVC's remote is the stack's own object store: no other one is set."""
    return not settings.remote_url("")


def profiles(settings: Settings) -> list[str]:
    """Chooses the profiles of docker-compose.yml that a start needs."""
    chosen = [AIRFLOW]
    if has_local_mlflow(settings):
        chosen.append(TRACKING)
    if has_local_storage(settings):
        chosen.append(STORAGE)
    if settings.monitoring != "off":
        chosen.append(MONITORING)
    return chosen


def stage_user(settings: Settings, workspace: Path) -> str:
    """Gives the numbers that stages run as: what they write shall belong to the checkout's owner."""
    if settings.stage_user:
        return settings.stage_user
    owner = workspace.stat()
    uid = owner.st_uid if settings.airflow_uid is None else settings.airflow_uid
    return f"{uid}:{owner.st_gid}"


def monitoring_user(settings: Settings, workspace: Path) -> str:
    """Gives who owns the configuration with the receivers' secrets: this user, or the stages' where this is root."""
    root = os.getuid() == 0
    return stage_user(settings, workspace) if root else f"{os.getuid()}:{os.getgid()}"


def _file_digests(layout: Layout) -> dict[str, str]:
    # Labels of the containers that read these files at their start alone: a change makes them anew.
    source = layout.monitoring_source
    return {
        "PROMETHEUS_DIGEST": folder_fingerprint(source / "prometheus", "prometheus.yml", "rules"),
        "STATSD_DIGEST": folder_fingerprint(source / "statsd"),
        "GATEWAY_DIGEST": folder_fingerprint(layout.root / "containers" / "gateway"),
    }


def check_storage(settings: Settings) -> None:
    """Checks that no keys of another store would be sent to the stack's own.

    Raises:
        ConfigurationError: keys or an endpoint are set, but not what they belong to.
    """
    if not has_local_storage(settings):
        return
    given = {
        "AWS_ACCESS_KEY_ID": settings.aws_access_key_id,
        "DVC_S3_ENDPOINT_URL": settings.dvc_s3_endpoint_url,
    }
    if names := [name for name, value in given.items() if value]:
        raise ConfigurationError(
            f"{' and '.join(names)} is set, but DVC_REMOTE_URL is not. Set DVC_REMOTE_URL="
            "s3://bucket/prefix for a store of yours, or leave all of them empty for the stack's own."
        )


def compose_values(layout: Layout, settings: Settings) -> dict[str, str]:
    """Gives the variables by name; none of them is secret.

    Raises:
        ConfigurationError: the settings of the DVC remote contradict each other.
    """
    check_storage(settings)
    workspace = stage_workspace(layout, settings)
    values = {
        "COMPOSE_PROJECT_NAME": settings.compose_project_name,
        "COMPOSE_PROFILES": ",".join(profiles(settings)),
        "NETWORK_NAME": settings.network_name,
        "IMAGE_PREFIX": settings.image_prefix,
        "IMAGE_TAG": settings.image_tag
        or image_tag(layout.root, gpu=settings.train_gpus is not None),
        "PROJECT_HOST_PATH": str(workspace),
        "STAGE_USER": stage_user(settings, workspace),
        "MONITORING_USER": monitoring_user(settings, workspace),
        "STATSD_ON": str(MONITORING in profiles(settings)),
        **_file_digests(layout),
        "STACK_MLFLOW_URI": LOCAL_MLFLOW if has_local_mlflow(settings) else "",
        "STACK_DVC_REMOTE_URL": LOCAL_REMOTE if has_local_storage(settings) else "",
        "STACK_S3_ENDPOINT_URL": LOCAL_ENDPOINT if has_local_storage(settings) else "",
    }
    if not has_local_storage(settings):  # else they are the stack's own, from .env
        values |= {"STACK_S3_ACCESS_KEY": "", "STACK_S3_SECRET_KEY": ""}
    # Compose too lets the environment win; but there, where it is set and empty, it is meant to be unset.
    return {name: value for name, value in values.items() if not os.environ.get(name)}
