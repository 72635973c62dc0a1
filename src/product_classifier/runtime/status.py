"""`product-classifier status`: each service, and how the last run stands."""

import time

import psutil
from rich.console import Console
from rich.table import Table

from product_classifier.core.errors import ProductClassifierError
from product_classifier.core.settings import Settings
from product_classifier.runtime.airflow_api import AirflowAPI
from product_classifier.runtime.health import healthy_services
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.services import all_services
from product_classifier.runtime.supervision import ServiceState, Supervisor


def family_memory_bytes(pid: int) -> int:
    """Adds up the resident memory of a process and all that descends from it."""
    total = 0
    try:
        leader = psutil.Process(pid)
        family = [leader, *leader.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def format_seconds(seconds: float) -> str:
    """Renders a duration: 42 s, 12 min, 3 h 5 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _cells(state: ServiceState | None, healthy: bool) -> tuple[str, str, str, str]:
    if state is None or not state.alive:
        return "", "", "", f"[red]{state.state.lower() if state else 'stopped'}[/]"
    memory = f"{family_memory_bytes(state.pid) / 2**20:.0f} MiB"
    health = "[green]healthy[/]" if healthy else "[yellow]not ready[/]"
    return str(state.pid), format_seconds(time.time() - state.started), memory, health


def last_run_line(settings: Settings) -> str:
    """Says how the newest run of the pipeline stands."""
    try:
        run = AirflowAPI(settings).last_run()
    except ProductClassifierError as error:
        return f"Last run: unknown ({error})"
    return f"Last run: {run['dag_run_id']}: {run['state']}" if run else "Last run: none yet"


def print_status(layout: Layout, settings: Settings, console: Console) -> bool:
    """Prints the table; True where every service is healthy."""
    states = Supervisor(layout).states()
    if not states:
        console.print("Nothing runs. `make start` starts it.")
        return False
    services = all_services(layout, settings)
    healthy = healthy_services(settings, states)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))  # fits 80 columns
    for title in ("service", "pid", "uptime", "memory", "health", "address"):
        table.add_column(title, no_wrap=True)
    for service in services:
        cells = _cells(states.get(service.name), service.name in healthy)
        table.add_row(service.name, *cells, service.url or "")
    console.print(table)
    console.print(last_run_line(settings), soft_wrap=True, markup=False)
    return all(service.name in healthy for service in services)
