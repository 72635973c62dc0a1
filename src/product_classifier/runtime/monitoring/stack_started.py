"""Since when the container stack is meant to run, as a metric: a service seen since is missed where it is gone.

Prometheus can't tell by its own start: Docker brings it back after a reboot of the machine as it does after `make stop`
and `make start`. In the first case every service should be back, in the second the pipeline brings serve up at its end.
"""

import logging
import time

from prometheus_client import CollectorRegistry, Gauge

from product_classifier.core.textfile import SUFFIX, read_metrics, try_write_metrics
from product_classifier.core.workspace import Workspace

logger = logging.getLogger(__name__)

FILE = "stack"  # run_compose_options.sh removes it by this name
STARTED = "product_classifier_stack_started_timestamp_seconds"


def note_stack_start(workspace: Workspace, *, watched: bool) -> None:
    """Notes that the stack is started now; a folder that can't be written to is a warning.

    Args:
        workspace: Where the stack's exporter reads text files.
        watched: Whether its Prometheus ran before. Then what was noted stays: a start that repairs a service must not
            end the alert about it before it is back.
    """
    if watched and read_metrics(workspace.metrics, FILE):
        return
    registry = CollectorRegistry()
    text = "When the container stack was last started, not counting reboots."
    Gauge(STARTED, text, registry=registry).set(round(time.time(), 3))
    try_write_metrics(workspace.metrics, FILE, registry)


def forget_stack_start(workspace: Workspace) -> None:
    """Removes the note, where the stack was stopped on purpose: from then on Prometheus' own start counts."""
    try:
        (workspace.metrics / f"{FILE}{SUFFIX}").unlink(missing_ok=True)
    except OSError as error:
        logger.warning("The start of the stack is still noted: %s", error)
