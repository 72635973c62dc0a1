"""`product-classifier statsd-exporter`: Airflow's StatsD for Prometheus, where no statsd_exporter is installed."""

import logging
from pathlib import Path
from typing import Annotated

import typer

logger = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("statsd-exporter")(_statsd_exporter)


def _address(option: str, text: str) -> tuple[str, int]:
    """Reads host:port; without a host it is loopback.

    Raises:
        ConfigurationError: it is neither.
    """
    from product_classifier.core.errors import ConfigurationError

    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigurationError(f"{option}: expected host:port. Received: {text!r}.")
    return host.strip("[]") or "127.0.0.1", int(port)


def _statsd_exporter(
    mapping: Annotated[
        Path,
        typer.Option("--statsd.mapping-config", help="What becomes a metric; the rest is dropped."),
    ],
    web: Annotated[
        str, typer.Option("--web.listen-address", help="Where /metrics is answered.")
    ] = "127.0.0.1:9102",
    udp: Annotated[
        str, typer.Option("--statsd.listen-udp", help="Where StatsD is received.")
    ] = "127.0.0.1:9125",
    tcp: Annotated[
        str, typer.Option("--statsd.listen-tcp", help="Only empty: there is no StatsD over TCP.")
    ] = "",
) -> None:
    """Receives StatsD and gives it to Prometheus.

    The options are those of statsd_exporter, which it stands in for.
    """
    from product_classifier.core.errors import ConfigurationError
    from product_classifier.core.logging import configure_logging
    from product_classifier.runtime.monitoring.statsd_exporter import (
        StatsDMetrics,
        listen_udp,
        receive,
        serve_metrics,
    )
    from product_classifier.runtime.monitoring.statsd_mapping import StatsDMapping

    configure_logging("statsd-exporter")
    if tcp:
        raise ConfigurationError(f"--statsd.listen-tcp: expected nothing. Received: {tcp!r}.")
    received, answered = _address("--statsd.listen-udp", udp), _address("--web.listen-address", web)
    metrics = StatsDMetrics(StatsDMapping.load(mapping))
    listener = listen_udp(*received)
    serve_metrics(metrics, *answered)
    logger.info("StatsD on UDP %s, metrics on %s.", udp, web)
    with listener:
        receive(listener, metrics)
