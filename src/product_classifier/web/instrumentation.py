"""Prometheus metrics of a service, in a registry of its own so that a process may hold many apps."""

import itertools

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_fastapi_instrumentator.instrumentation import PrometheusFastApiInstrumentator
from prometheus_fastapi_instrumentator.metrics import Info
from starlette.responses import Response

from product_classifier import __version__

# From a cached text to a batch of 64 photos in the queue.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STATUS_GROUPS = ("2xx", "4xx", "5xx")


class HTTPMetrics:
    """What is counted for every request: handlers by route template, statuses by hundred."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "http_requests_total",
            "Requests answered.",
            ("handler", "method", "status"),
            registry=registry,
        )
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("handler", "method"),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )

    def __call__(self, info: Info) -> None:
        """Counts one request."""
        self.requests.labels(info.modified_handler, info.method, info.modified_status).inc()
        self.duration.labels(info.modified_handler, info.method).observe(info.modified_duration)

    def initialise(self, app: FastAPI) -> None:
        """Makes every series of the documented routes: a 5xx series must exist before the first error."""
        for path, operations in app.openapi()["paths"].items():
            methods = (name.upper() for name in operations if name != "parameters")
            for method, status in itertools.product(methods, STATUS_GROUPS):
                self.requests.labels(path, method, status)
        for status in STATUS_GROUPS:
            self.requests.labels("none", "GET", status)


def instrument(app: FastAPI, service: str) -> CollectorRegistry:
    """Counts an app's requests and shows all metrics at `GET /metrics`.

    Requests that no route matches share the handler `none`.

    Args:
        app: The app; its registry is `app.state.registry` from now on.
        service: Name of the service, for the build information.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    build = Gauge(
        "product_classifier_build_info", "Always 1.", ("service", "version"), registry=registry
    )
    build.labels(service, __version__).set(1)
    metrics = HTTPMetrics(registry)
    PrometheusFastApiInstrumentator(registry=registry).add(metrics).instrument(app)
    app.state.registry = registry
    initialised = False

    # Plain `def`: rendering takes milliseconds and runs in a worker thread, beside the event loop.
    @app.get("/metrics", response_class=PlainTextResponse, tags=["status"])
    def show_metrics() -> Response:
        """Prometheus metrics."""
        nonlocal initialised
        if not initialised:  # only now are all routes there
            metrics.initialise(app)
            initialised = True
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return registry
