"""What Prometheus asks on this machine: a file of addresses for each scrape job, in its file discovery's format."""

import json
from collections.abc import Collection, Mapping

from product_classifier.core.files import write_text_atomic
from product_classifier.core.settings import Settings
from product_classifier.runtime.api_services import AUTH, SERVE, deployed_names, local_url
from product_classifier.runtime.layout import Layout

# Scrape jobs by the name of the service that answers them.
API_JOBS: Mapping[str, str] = {SERVE: "fastapi", AUTH: "auth"}
LOOPBACK = "127.0.0.1"


def static_targets(settings: Settings) -> dict[str, list[str]]:
    """Gives the addresses of what always runs beside Prometheus, by scrape job."""
    ports = {
        "prometheus": settings.prometheus_port,
        "alertmanager": settings.alertmanager_port,
        "node": settings.node_exporter_port,
        "pipeline": settings.pipeline_exporter_port,
        "airflow": settings.airflow_exporter_port,
    }
    return {job: [f"{LOOPBACK}:{port}"] for job, port in ports.items()}


def api_targets(settings: Settings, deployed: Collection[str]) -> dict[str, list[str]]:
    """Gives the addresses of auth and serve, as far as they are deployed."""
    found: dict[str, list[str]] = {}
    for name, job in API_JOBS.items():
        host, port = getattr(settings, f"{name}_host"), getattr(settings, f"{name}_port")
        address = local_url(host, port).removeprefix("http://")
        found[job] = [address] if name in deployed else []
    return found


def write_targets(
    layout: Layout, settings: Settings, deployed: Collection[str] | None = None
) -> None:
    """Writes all jobs' addresses; Prometheus takes up a changed file by itself.

    Args:
        layout: The checkout.
        settings: Ports.
        deployed: Which of auth and serve are to be there; those that the pipeline has deployed if None.
    """
    names = deployed_names(layout) if deployed is None else deployed
    folder = layout.monitoring / "targets"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for job, addresses in (static_targets(settings) | api_targets(settings, names)).items():
        text = json.dumps([{"targets": addresses}] if addresses else []) + "\n"
        path = folder / f"{job}.json"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text_atomic(path, text)


def update_targets(layout: Layout, settings: Settings) -> None:
    """Writes them again where monitoring was set up: after a deployment."""
    if (layout.monitoring / "targets").is_dir():
        write_targets(layout, settings)
