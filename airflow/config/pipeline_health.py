"""Says whether one part of Airflow is alive: `python -m pipeline_health scheduler`. For health checks of containers.

Airflow's own `airflow jobs check` and `celery inspect` with Airflow's application cost five seconds of processor time
each; asked every few seconds for each container, that is a whole processor. This asks who knows already.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any
from urllib.request import urlopen

OWN_PORTS = {
    "api-server": "http://127.0.0.1:8080/api/v2/version",
    "scheduler": "http://127.0.0.1:8974/health",
}
# The API server reads the heartbeats of the parts that have no port.
MONITOR = "http://airflow-api-server:8080/api/v2/monitor/health"
TIMEOUT_SECONDS = 5


def _get(url: str) -> bytes:
    with urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the addresses above
        content: bytes = answer.read()
    return content


def _worker_answers() -> bool:
    from celery import Celery

    application = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    name = f"celery@{socket.gethostname()}"
    return bool(application.control.ping(destination=[name], timeout=TIMEOUT_SECONDS))


def is_healthy(part: str) -> bool:
    """Asks for a part: api-server, scheduler, dag_processor, triggerer or worker."""
    if part == "worker":
        return _worker_answers()
    if part in OWN_PORTS:
        _get(OWN_PORTS[part])  # an error where the part is not well
        return True
    report: dict[str, Any] = json.loads(_get(MONITOR))
    return bool(report[part]["status"] == "healthy")


if __name__ == "__main__":
    try:
        healthy = is_healthy(sys.argv[1])
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    sys.exit(not healthy)
