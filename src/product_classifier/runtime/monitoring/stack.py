"""What the container stack's monitoring finds on this machine: Alertmanager's private files, the stages' text files."""

import os
from pathlib import Path

from product_classifier.core.files import sha256_bytes, write_text_atomic
from product_classifier.core.settings import Settings
from product_classifier.runtime.compose_values import monitoring_user, stage_user
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.alertmanager_config import (
    Receivers,
    render_alertmanager,
)
from product_classifier.runtime.monitoring.configuration import metrics_folder
from product_classifier.runtime.monitoring.programs import ALERTMANAGER
from product_classifier.runtime.services import stage_workspace

# Not the embedded run's folder: there the log is at another address.
FOLDER = f"{ALERTMANAGER}-stack"


def _give(path: Path, user: str) -> None:
    # Only root can; everybody else is the owner already, or keeps what was made by somebody else.
    if os.getuid() == 0:
        uid, gid = user.split(":")
        os.chown(path, int(uid), int(gid))


def prepare_stack(layout: Layout, settings: Settings) -> dict[str, str]:
    """Writes Alertmanager's configuration, and makes the folders that containers write to or read from.

    Returns:
        What docker-compose.yml is told of it, by name: Alertmanager reads the file at its start alone, so another one
        makes a new container, whoever brings the stack up next.

    Raises:
        ConfigurationError: the committed routes can't be used, or a receiver is half set.
    """
    owner = monitoring_user(settings, stage_workspace(layout, settings))
    text = render_alertmanager(
        layout.monitoring_source / "alertmanager" / "alertmanager.yml",
        Receivers.from_settings(settings),
    )
    layout.monitoring.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (FOLDER, f"{ALERTMANAGER}-data"):
        folder = layout.monitoring / name
        folder.mkdir(exist_ok=True, mode=0o700)
        _give(folder, owner)
    path = layout.monitoring / FOLDER / "alertmanager.yml"
    write_text_atomic(path, text, mode=0o600)
    _give(path, owner)
    _make_metrics_folder(layout, settings)
    return {"ALERTMANAGER_DIGEST": sha256_bytes(text.encode())[:16]}


def _make_metrics_folder(layout: Layout, settings: Settings) -> None:
    # All that is on the way to it as well: a stage that is not root has to get through a private `.state`.
    folder = metrics_folder(layout, settings) / "workspace"
    folder.mkdir(parents=True, exist_ok=True)
    for part in (folder.parents[1], folder.parent, folder):
        _give(part, stage_user(settings, stage_workspace(layout, settings)))
