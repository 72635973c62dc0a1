"""The prediction service as an app. Run it with `product-classifier serve`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.datastructures import State

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.serve.airflow_client import AirflowClient
from product_classifier.serve.auth_proxy import AuthProxy
from product_classifier.serve.bundle_source import STATE_FOLDER, bundle_source
from product_classifier.serve.dependencies import current_user
from product_classifier.serve.drift import DriftMonitor
from product_classifier.serve.engine import Engine
from product_classifier.serve.explain import Explainer
from product_classifier.serve.log_store import LogStore
from product_classifier.serve.model_metrics import ModelMetrics
from product_classifier.serve.reload import Reloader
from product_classifier.serve.routes import (
    drift,
    logs,
    model,
    predict,
    predict_batch,
    status,
    token,
    train,
)
from product_classifier.web.app import (
    DOCUMENTATION_PATHS,
    DOCUMENTATION_PREFIXES,
    build_app,
    install,
    parse_origins,
)
from product_classifier.web.guard import GuardPolicy
from product_classifier.web.jwks import KeySource
from product_classifier.web.leaving import is_leaving
from product_classifier.web.limits import RateLimits, parse_rates
from product_classifier.web.proxies import TrustedProxies
from product_classifier.web.throttle import AnonymousThrottle, Rate
from product_classifier.web.tokens import TokenClaims

logger = logging.getLogger(__name__)

PUBLIC_PATHS = DOCUMENTATION_PATHS | {
    "/",
    "/status",
    "/health",
    "/ready",
    "/metrics",
    "/token",
    "/token/refresh",
}
TAGS = {
    "predict": "One product, or up to 64 at a time.",
    "token": "Signing in, handed on to auth.",
    "model": "What answers, how well, and what it was asked so far.",
    "train": "Starting the pipeline, and following it.",
    "logs": "The last requests.",
    "status": "For people, probes and Prometheus; no token needed.",
}
MEGABYTE = 1024 * 1024
BODY_BYTES = {
    "/predict": 10 * MEGABYTE,
    "/predict_code": 10 * MEGABYTE,
    "/predict/batch": 64 * MEGABYTE,
}


def create_app(settings: Settings, workspace: Workspace) -> FastAPI:
    """Builds the app; keys, model and stores are opened when it starts.

    Raises:
        ConfigurationError: a setting can't be used.
    """
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    limits = _check_settings(settings, redis_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await _start(app, stack, settings)
            yield

    app = build_app(
        "product-classifier",
        "Finds the product type code of a product from its texts and its photo, with a "
        "calibrated confidence.",
        lifespan,
        TAGS,
    )
    state = app.state
    state.settings = settings
    state.limits = limits
    state.keys = KeySource.from_settings(settings, workspace.root / STATE_FOLDER / "auth_keys.json")
    state.log_store = LogStore(redis_url, settings.request_log_entries)
    state.auth_proxy = AuthProxy(settings)
    state.airflow = AirflowClient(settings)
    _install(app, settings)
    _add_model(state, settings)
    state.explainer = Explainer(lambda: state.engine.waiting)
    state.reloader = Reloader(state.engine, bundle_source(settings, workspace))
    state.registry.watch(state.ready, lambda: not is_leaving(app) and not status.missing(state))
    for page in (status, token, model, drift, logs, train):
        app.include_router(page.router)
    for router in (predict.router, predict_batch.router):
        app.include_router(router, dependencies=[Depends(current_user)])
    return app


def _add_model(state: State, settings: Settings) -> None:
    """Makes the engine, and what counts and judges its answers."""
    state.model_metrics = ModelMetrics(state.registry)
    state.model_metrics.watch_redis(
        {
            "limits": lambda: state.limits.has_fallen_back,
            "log": lambda: state.log_store.has_fallen_back,
        }
    )
    state.drift = DriftMonitor(state.registry, settings.drift_window_products)
    state.engine = Engine(
        settings.inference_workers, settings.inference_queue, state.model_metrics, state.drift
    )


def _check_settings(settings: Settings, redis_url: str | None) -> RateLimits:
    if settings.algorithm == "HS256" and (
        faults := [fault for fault in settings.check_auth() if "SECRET_KEY" in fault]
    ):
        raise ConfigurationError(" ".join(faults))
    parse_rates(settings.predict_rate_limit, "PREDICT_RATE_LIMIT")
    parse_rates(settings.predict_batch_rate_limit, "PREDICT_BATCH_RATE_LIMIT")
    return RateLimits(redis_url, {"/predict/batch": "products"})


def _install(app: FastAPI, settings: Settings) -> None:
    async def verify(text: str) -> TokenClaims:
        keys: KeySource = app.state.keys
        return await keys.verify(text)

    def keep(entry: dict[str, Any]) -> None:
        app.state.log_store.add(entry)

    rate = Rate.parse(settings.anonymous_rate_limit, "ANONYMOUS_RATE_LIMIT")
    policy = GuardPolicy(
        verify=verify,
        public_paths=PUBLIC_PATHS,
        public_prefixes=DOCUMENTATION_PREFIXES,
        body_bytes=BODY_BYTES,
        throttle=AnonymousThrottle(rate),
    )
    install(
        app,
        "serve",
        policy,
        trusted=TrustedProxies.parse(settings.trusted_proxies),
        origins=parse_origins(settings.cors_allow_origins),
        on_entry=keep,
    )


async def _start(app: FastAPI, stack: AsyncExitStack, settings: Settings) -> None:
    """Starts everything; what was started ends in the reverse order, also where a later start fails."""
    state = app.state
    stack.push_async_callback(state.limits.close)
    stack.push_async_callback(state.auth_proxy.close)
    state.log_store.start()
    stack.push_async_callback(state.log_store.close)
    stack.push_async_callback(state.keys.close)
    state.engine.start()
    stack.push_async_callback(state.engine.stop, settings.shutdown_grace_seconds)
    stack.callback(state.explainer.stop)
    stack.push_async_callback(state.reloader.stop)
    await asyncio.gather(state.keys.start(), state.reloader.start())
