"""Removes what a killed worker left running.

Runs at a worker's start, before it takes tasks:

    python -m common.sweep

A worker that starts has no tasks yet, so a stage's container that names it is an orphan of the time
before. Containers of other workers on the same engine are left alone. It never fails: the next try
of a task removes what is left of its own.
"""

import logging
import os
import socket

from common.containers import PROJECT, ROLE, STAGE, WORKER
from docker import APIClient
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

logger = logging.getLogger("sweep")

STOP_SECONDS = 10
TIMEOUT_SECONDS = 30


def sweep(client: APIClient, project: str, worker: str) -> int:
    """Ends and removes the stage containers that name this worker; gives their number."""
    labels = [f"{PROJECT}={project}", f"{ROLE}={STAGE}", f"{WORKER}={worker}"]
    found = client.containers(all=True, filters={"label": labels})
    for container in found:
        for end in (
            lambda one=container["Id"]: client.stop(one, timeout=STOP_SECONDS),
            lambda one=container["Id"]: client.remove_container(one, force=True),
        ):
            try:
                end()
            except APIError as error:
                if error.status_code not in (404, 409):  # gone, or going
                    logger.warning("Container %.12s: %s", container["Id"], error.explanation)
    return len(found)


def main() -> None:
    """Sweeps with the worker's environment."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    project, url = os.environ.get("COMPOSE_PROJECT"), os.environ.get("DOCKER_HOST")
    if not project or not url:
        logger.info("COMPOSE_PROJECT or DOCKER_HOST is not set: nothing to sweep.")
        return
    try:
        client = APIClient(base_url=url, version="auto", timeout=TIMEOUT_SECONDS)
        count = sweep(client, project, socket.gethostname())
    except (DockerException, RequestException) as error:
        logger.warning("The Docker Engine does not answer: %s", error)
        return
    logger.info("Containers of lost tasks removed: %d.", count)


if __name__ == "__main__":
    main()
