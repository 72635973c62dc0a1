"""StatsD in over UDP, Prometheus' text out over HTTP: for where no statsd_exporter is installed.

It knows what Airflow sends: counters, gauges (absolute and by difference) and timers, several in a packet. What a
mapping file does not name is dropped, so the number of series is that of pools, tasks and their states. A series that
is not sent again within the `ttl` of its mapping is forgotten.
"""

import logging
import math
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

from product_classifier.core.errors import RuntimeServiceError
from product_classifier.runtime.monitoring.statsd_mapping import Kind, StatsDMapping, Target

logger = logging.getLogger(__name__)

MOST_SERIES = 5000
_KINDS: dict[str, Kind] = {"c": "counter", "g": "gauge", "ms": "observer", "h": "observer"}
_PACKET_BYTES = 65_535
_BUFFER_BYTES = 1 << 20


@dataclass
class _Series:
    kind: Kind
    expires: float = math.inf  # in seconds of the monotonic clock
    value: float = 0.0
    count: int = 0


@dataclass(eq=False)  # a registry keeps it by its identity
class StatsDMetrics:
    """What was received so far, as a collector."""

    mapping: StatsDMapping
    _series: dict[Target, _Series] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_full: bool = False

    def take(self, packet: bytes) -> None:
        """Adds the lines of one packet; one that is no StatsD is left out."""
        for line in packet.decode("utf-8", "replace").splitlines():
            try:
                self._take_line(line)
            except ValueError:
                logger.debug("Not StatsD: %.200r", line)

    def _take_line(self, line: str) -> None:
        name, separator, rest = line.partition(":")
        if not separator or not name:
            raise ValueError(line)
        text, letter, *options = rest.split("|")
        value, kind = float(text), _KINDS.get(letter)
        if kind is None or not options == [one for one in options if one[:1] in "@#"]:
            raise ValueError(line)
        rates = [float(one[1:]) for one in options if one.startswith("@")]
        if any(not 0 < rate <= 1 for rate in rates) or not math.isfinite(value):
            raise ValueError(line)
        if kind == "counter" and value < 0:
            raise ValueError(line)
        target = self.mapping.find(name, kind)
        if target is not None:
            with self._lock:
                self._add(target, kind, value / (rates or [1.0])[0], relative=text[0] in "+-")

    def _add(self, target: Target, kind: Kind, value: float, *, relative: bool) -> None:
        if self._is_expired(target) or len(self._series) >= MOST_SERIES:
            self._forget_expired()
        if target not in self._series and len(self._series) >= MOST_SERIES:
            if not self._is_full:
                logger.warning("More than %d series: new ones are left out.", MOST_SERIES)
            self._is_full = True
            return
        series = self._series.setdefault(target, _Series(kind))
        if series.kind != kind:
            raise ValueError(f"{target.name} is a {series.kind}")
        if target.ttl_seconds is not None:
            series.expires = time.monotonic() + target.ttl_seconds
        series.count += 1
        if kind == "gauge" and not relative:
            series.value = value
        else:
            # Timers come in milliseconds.
            series.value += value / 1000 if kind == "observer" else value

    def _is_expired(self, target: Target) -> bool:
        series = self._series.get(target)
        return series is not None and series.expires <= time.monotonic()

    def _forget_expired(self) -> None:
        for target in list(filter(self._is_expired, self._series)):
            del self._series[target]

    def collect(self) -> Iterator[Metric]:
        """Gives every metric with its series."""
        with self._lock:
            self._forget_expired()
            found = [(target, _Series(**vars(series))) for target, series in self._series.items()]
        families: dict[str, Metric] = {}
        for target, series in sorted(found, key=lambda one: (one[0].name, one[0].labels)):
            names, values = [key for key, _ in target.labels], [text for _, text in target.labels]
            if series.kind == "observer":
                summary = families.setdefault(
                    target.name, SummaryMetricFamily(target.name, target.help, labels=names)
                )
                assert isinstance(summary, SummaryMetricFamily)
                summary.add_metric(values, count_value=series.count, sum_value=series.value)
                continue
            family = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
            metric = families.setdefault(
                target.name, family(target.name, target.help, labels=names)
            )
            metric.add_metric(values, series.value)  # type: ignore[attr-defined]
        yield from families.values()


def listen_udp(host: str, port: int) -> socket.socket:
    """Opens the socket that StatsD is sent to.

    Raises:
        RuntimeServiceError: the address is taken or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RuntimeServiceError(
            f"StatsD can't be received on UDP {host}:{port}: {error}"
        ) from error
    return listener


def serve_metrics(metrics: StatsDMetrics, host: str, port: int) -> None:
    """Answers `/metrics` from threads of this process.

    Raises:
        RuntimeServiceError: the address is taken or not of this machine.
    """
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise RuntimeServiceError(f"Metrics can't be served on {host}:{port}: {error}") from error


def receive(listener: socket.socket, metrics: StatsDMetrics) -> None:
    """Takes packets until the process is ended."""
    while True:
        metrics.take(listener.recv(_PACKET_BYTES))
