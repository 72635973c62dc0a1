"""Waits until every service is healthy, for a bounded time, and says what it waits for."""

import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

import httpx

from product_classifier.core.errors import RuntimeServiceError
from product_classifier.core.settings import Settings
from product_classifier.runtime.api_services import AUTH, SERVE, local_url, serve_url
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.services import health_addresses
from product_classifier.runtime.services import (
    AIRFLOW_API,
    AIRFLOW_DAG_PROCESSOR,
    AIRFLOW_SCHEDULER,
    MLFLOW,
)
from product_classifier.runtime.supervision import ServiceState, Supervisor

START_TIMEOUT_SECONDS = 240.0
_AIRFLOW_PARTS = {AIRFLOW_SCHEDULER: "scheduler", AIRFLOW_DAG_PROCESSOR: "dag_processor"}


def _get(url: str) -> httpx.Response | None:
    try:
        answer = httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return None
    return answer if answer.status_code == httpx.codes.OK else None


def _beats(report: dict[str, Any], part: str, since: float) -> bool:
    # A heartbeat from before this start is in the database too: it must be newer than the process.
    entry = report.get(part) or {}
    beat = entry.get(f"latest_{part}_heartbeat")
    if entry.get("status") != "healthy" or not beat:
        return False
    return datetime.fromisoformat(beat).timestamp() >= since


def api_addresses(settings: Settings) -> dict[str, str]:
    """Gives the addresses at which auth and serve are asked."""
    return {AUTH: local_url(settings.auth_host, settings.auth_port), SERVE: serve_url(settings)}


def healthy_services(settings: Settings, states: dict[str, ServiceState]) -> set[str]:
    """Asks each running service whether it is healthy; gives the names of those that are."""
    alive = {name: state for name, state in states.items() if state.alive}
    pages = {
        MLFLOW: f"http://127.0.0.1:{settings.mlflow_port}/health",
        **{name: f"{url}/ready" for name, url in api_addresses(settings).items()},
        **health_addresses(settings),
    }
    healthy = {name for name, page in pages.items() if name in alive and _get(page)}
    if AIRFLOW_API not in alive:
        return healthy
    url = f"http://127.0.0.1:{settings.airflow_port}/api/v2/monitor/health"
    if (answer := _get(url)) is not None:
        healthy.add(AIRFLOW_API)
        report = answer.json()
        healthy |= {
            name
            for name, part in _AIRFLOW_PARTS.items()
            if name in alive and _beats(report, part, alive[name].started)
        }
    return healthy


def log_tail(layout: Layout, service: str, lines: int = 15) -> str:
    """Gives the last lines of a service's log."""
    path = layout.logs / f"{service}.log"
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def wait_until_healthy(
    supervisor: Supervisor,
    settings: Settings,
    show: Callable[[str], None],
    timeout_seconds: float = START_TIMEOUT_SECONDS,
    names: Collection[str] | None = None,
) -> None:
    """Waits for services.

    Args:
        supervisor: The supervisor, with its services started.
        settings: Ports.
        show: Told what is still waited for, about twice a second.
        timeout_seconds: After this, waiting ends.
        names: Only these are waited for; None: all of them.

    Raises:
        RuntimeServiceError: a service gave up or is not healthy in time; with the end of its log.
    """
    started = time.monotonic()
    while True:
        states = supervisor.states()
        wanted = set(states if names is None else names)
        waiting = sorted(wanted - healthy_services(settings, states))
        if not waiting and states:
            return
        seconds = time.monotonic() - started
        given_up = [n for n in waiting if n in states and states[n].state == "FATAL"]
        if given_up or seconds > timeout_seconds:
            name = (given_up or waiting)[0]
            what = "ended again and again" if given_up else f"is not healthy after {seconds:.0f} s"
            raise RuntimeServiceError(
                f"{name} {what}. The end of its log:\n{log_tail(supervisor.layout, name)}"
            )
        show(f"Waiting for {', '.join(waiting)} ({seconds:.0f} s)")
        time.sleep(0.5)
