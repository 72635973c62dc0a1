"""The files that the monitoring's programs read on this machine, and the folders that they write to."""

from collections.abc import Collection
from pathlib import Path

from product_classifier.core.files import write_text_atomic
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.alertmanager_config import (
    Receivers,
    render_alertmanager,
)
from product_classifier.runtime.monitoring.programs import ALERTMANAGER, GRAFANA, PROMETHEUS
from product_classifier.runtime.monitoring.prometheus_config import render_prometheus
from product_classifier.runtime.monitoring.stack_started import forget_stack_start
from product_classifier.runtime.monitoring.targets import LOOPBACK, write_targets
from product_classifier.runtime.services import stage_workspace

# Writers of text files, each in a folder of its own.
METRIC_WRITERS = ("workspace", "airflow")


def metrics_folder(layout: Layout, settings: Settings) -> Path:
    """Gives the folder of the pipeline's text files: in the workspace, where stages write them."""
    return stage_workspace(layout, settings) / ".state" / "metrics"


def rendered_files(layout: Layout, settings: Settings) -> dict[Path, str]:
    """Gives the configuration files by path; the second holds secrets.

    Raises:
        ConfigurationError: a committed file can't be used, or a receiver is half set.
    """
    source, target = layout.monitoring_source, layout.monitoring
    alert_log = f"http://{LOOPBACK}:{settings.alert_log_port}/"
    return {
        target / PROMETHEUS / "prometheus.yml": render_prometheus(
            source / "prometheus" / "prometheus.yml",
            target / "targets",
            source / "prometheus" / "rules",
            f"{LOOPBACK}:{settings.alertmanager_port}",
        ),
        target / ALERTMANAGER / "alertmanager.yml": render_alertmanager(
            source / "alertmanager" / "alertmanager.yml",
            Receivers.from_settings(settings, alert_log),
        ),
    }


def write_configuration(
    layout: Layout, settings: Settings, deployed: Collection[str] | None = None
) -> None:
    """Writes configuration and targets, private to this user, and makes the folders for data.

    Args:
        layout: The checkout.
        settings: Ports and receivers.
        deployed: See `write_targets`.

    Raises:
        ConfigurationError: see `rendered_files`.
    """
    files = rendered_files(layout, settings)
    folders = [layout.monitoring, *(path.parent for path in files)]
    folders += [layout.monitoring / f"{n}-data" for n in (PROMETHEUS, ALERTMANAGER, GRAFANA)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for writer in METRIC_WRITERS:
        (metrics_folder(layout, settings) / writer).mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_text_atomic(path, text, mode=0o600)
    # That of a container stack, which this run takes the place of.
    forget_stack_start(Workspace(stage_workspace(layout, settings)))
    write_targets(layout, settings, deployed)
