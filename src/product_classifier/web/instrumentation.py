"""Prometheus metrics of a service, in a registry of its own so that a process may hold many apps."""

import itertools
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from prometheus_fastapi_instrumentator.metrics import Info
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from product_classifier import __version__
from product_classifier.web.context import UNMATCHED, route_template
from product_classifier.web.metric_registry import MetricRegistry
from product_classifier.web.refusals import LIMIT_SCOPES, limited_by, token_rejection
from product_classifier.web.token_parts import TOKEN_REASONS

COMMIT_VARIABLE = (
    "PRODUCT_CLASSIFIER_COMMIT"  # of the code that runs; from the image or the supervisor
)
# From a cached text to a batch of 64 photos in the queue. One of them is the latency objective of /predict, 1 s.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STATUS_GROUPS = ("2xx", "3xx", "4xx", "5xx")
NO_HANDLER, OTHER_METHOD = "none", "OTHER"
_OPERATIONS = frozenset({"get", "post", "put", "patch", "delete"})


class HTTPMetrics:
    """What is counted for every request.

    Callers can't make series: a method that a route does not have counts as a request that no route matches, and all
    series are there before the first request.
    """

    def __init__(self, app: FastAPI, registry: MetricRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "http_requests_total",
            "Requests answered.",
            ("handler", "method", "status"),
            registry=registry,
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time from the end of a request's headers to the last byte of its answer.",
            ("handler", "method"),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._unauthorized = Counter(
            "product_classifier_unauthorized_requests_total",
            "Requests answered 401 or 403.",
            ("handler",),
            registry=registry,
        )
        self._rejections = Counter(
            "product_classifier_token_rejections_total",
            "Access tokens refused, or missing, where one is needed, by reason.",
            ("reason",),
            registry=registry,
        )
        self._limited = Counter(
            "product_classifier_rate_limited_total",
            "Requests answered 429, by whose limit it was.",
            ("scope",),
            registry=registry,
        )
        for reason in sorted(TOKEN_REASONS):
            self._rejections.labels(reason)
        for who in LIMIT_SCOPES:
            self._limited.labels(who)

    def __call__(self, info: Info) -> None:
        """Counts one request."""
        handler, method = self._place(info.modified_handler, info.method)
        self._requests.labels(handler, method, info.modified_status).inc()
        self._duration.labels(handler, method).observe(info.modified_duration)
        scope = info.request.scope
        status = info.response.status_code if info.response is not None else 500
        if status in (401, 403):
            self._unauthorized.labels(handler).inc()
        elif status == 429:
            self._limited.labels(limited_by(scope)).inc()
        if reason := token_rejection(scope):
            self._rejections.labels(reason).inc()

    def _place(self, handler: str, method: str) -> tuple[str, str]:
        if (handler, method) in self.known:
            return handler, method
        return NO_HANDLER, method if method == "GET" else OTHER_METHOD

    @cached_property
    def known(self) -> frozenset[tuple[str, str]]:
        """Every handler with each of its methods; asked for the first time, it makes their series.

        Only then are all routes there. A 5xx series must exist before the first error, or that error is no increase.
        """
        pairs = frozenset(_operations(self._app)) | {
            (NO_HANDLER, "GET"),
            (NO_HANDLER, OTHER_METHOD),
        }
        for handler, method in pairs:
            self._duration.labels(handler, method)
            self._unauthorized.labels(handler)
            for status in STATUS_GROUPS:
                self._requests.labels(handler, method, status)
        return pairs


def _operations(app: FastAPI) -> Iterator[tuple[str, str]]:
    documented: dict[str, dict[str, Any]] = app.openapi()["paths"]
    for path, operations in documented.items():
        yield from itertools.product(
            [path], (name.upper() for name in operations.keys() & _OPERATIONS)
        )
    for route in app.routes:  # the documentation's own pages are on the app itself
        if isinstance(route, Route | Mount):
            methods = getattr(route, "methods", None) or {"GET"}
            yield from itertools.product([route.path], methods - {"HEAD"})  # answered as GET


class _Middleware(PrometheusInstrumentatorMiddleware):
    """The library's middleware; looks a route up once for itself and the request log."""

    def _get_handler(self, request: Request) -> tuple[str, bool]:
        route = route_template(request.scope)
        return route, route != UNMATCHED


def instrument(app: FastAPI, service: str) -> MetricRegistry:
    """Counts an app's requests and shows all metrics at `GET /metrics`.

    Requests that no route matches share the handler `none`.

    Args:
        app: The app; from now on its registry is `app.state.registry`, and `app.state.ready` the gauge that is to be
            kept at what `/ready` says.
        service: Name of the service, for the build information.

    Raises:
        ConfigurationError: the folder of PROMETHEUS_MULTIPROC_DIR can't be used.
    """
    registry = MetricRegistry()
    build = Gauge(
        "product_classifier_build_info",
        "Always 1.",
        ("service", "version", "commit"),
        multiprocess_mode="livemax",
        registry=registry,
    )
    build.labels(service, __version__, os.environ.get(COMMIT_VARIABLE) or "unknown").set(1)
    metrics = HTTPMetrics(app, registry)
    app.add_middleware(_Middleware, instrumentations=[metrics], registry=registry)
    app.state.registry = registry
    app.state.ready = Gauge(
        "product_classifier_ready",
        "1 where /ready says yes.",
        multiprocess_mode="livemin",  # whoever sends requests to the socket reaches all processes
        registry=registry,
    )

    # Plain `def`: rendering takes milliseconds and runs in a worker thread, beside the event loop.
    @app.get("/metrics", response_class=PlainTextResponse, tags=["status"])
    def show_metrics() -> Response:
        """Prometheus metrics."""
        _ = metrics.known
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return registry
