"""The auth service as an app. Run it with `product-classifier auth`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Scope

from product_classifier.auth import routes, user_routes
from product_classifier.auth.bootstrap import check_settings
from product_classifier.auth.errors import (
    HashingBusy,
    LockedOut,
    PasswordRefused,
    RefreshRefused,
    SignInRefused,
    UserExists,
    UserNameRefused,
    UserNotFound,
    UserProtected,
)
from product_classifier.auth.passwords import ROUNDS
from product_classifier.auth.readiness import ReadinessWatch
from product_classifier.auth.service import AuthService, open_service
from product_classifier.core.errors import ProductClassifierError
from product_classifier.core.settings import Settings
from product_classifier.web.app import (
    DOCUMENTATION_PATHS,
    DOCUMENTATION_PREFIXES,
    build_app,
    install,
    parse_origins,
)
from product_classifier.web.guard import GuardPolicy
from product_classifier.web.leaving import is_leaving
from product_classifier.web.problems import Problem, problem_response
from product_classifier.web.proxies import TrustedProxies
from product_classifier.web.refusals import too_many_requests
from product_classifier.web.throttle import AnonymousThrottle, Rate
from product_classifier.web.tokens import TokenClaims

logger = logging.getLogger(__name__)

CLEAN_UP_SECONDS = 600
DATABASE_RETRY_SECONDS = 5
# /verify-token checks its token itself: who still sends it in the address is told so, not just turned away.
PUBLIC_PATHS = DOCUMENTATION_PATHS | {
    "/",
    "/health",
    "/ready",
    "/metrics",
    "/token",
    "/token/refresh",
    "/verify-token",
    "/.well-known/jwks.json",
}
TAGS = {
    "tokens": "Signing in and out; the keys that verify tokens.",
    "users": "Accounts; one's own, and for administrators all.",
    "audit": "Who did what.",
    "status": "For people, probes and Prometheus; no token needed.",
}
_STATUSES: dict[type[ProductClassifierError], tuple[int, str]] = {
    PasswordRefused: (422, "Unprocessable Content"),
    UserNameRefused: (422, "Unprocessable Content"),
    UserExists: (409, "Conflict"),
    UserProtected: (409, "Conflict"),
    UserNotFound: (404, "Not Found"),
}


def create_app(settings: Settings, *, rounds: int = ROUNDS) -> FastAPI:
    """Builds the app; the database and the keys are opened when it starts.

    Args:
        settings: The deployment's settings.
        rounds: bcrypt's cost.

    Raises:
        ConfigurationError: a setting can't be used.
    """
    check_settings(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = await asyncio.to_thread(open_service, settings, app.state.registry, rounds=rounds)
        app.state.service = service
        watch = ReadinessWatch(service.is_ready)
        app.state.registry.watch(app.state.ready, lambda: watch.ready and not is_leaving(app))
        await watch.look()
        tasks = [
            asyncio.create_task(_keep_clean(service)),
            asyncio.create_task(watch.look_forever()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(service.close)

    app = build_app("Auth of product-classifier", "Users, passwords, tokens.", lifespan, TAGS)

    async def verify(token: str) -> TokenClaims:
        service: AuthService = app.state.service
        return await service.verify_token(token)

    rate = Rate.parse(settings.anonymous_rate_limit, "ANONYMOUS_RATE_LIMIT")
    policy = GuardPolicy(
        verify=verify,
        public_paths=frozenset(PUBLIC_PATHS),
        public_prefixes=DOCUMENTATION_PREFIXES,
        throttle=AnonymousThrottle(rate),
        # serve asks for the keys from one address for everybody.
        unthrottled_paths=frozenset({"/health", "/ready", "/metrics", "/.well-known/jwks.json"}),
    )
    install(
        app,
        "auth",
        policy,
        trusted=TrustedProxies.parse(settings.trusted_proxies),
        origins=parse_origins(settings.cors_allow_origins),
    )
    app.include_router(routes.router)
    app.include_router(user_routes.router)
    _install_error_handlers(app)
    return app


async def _keep_clean(service: AuthService) -> None:
    while True:
        await asyncio.sleep(CLEAN_UP_SECONDS)
        try:
            await run_in_threadpool(service.clean_up)
        except SQLAlchemyError as error:
            logger.warning("Clean-up is put off: %s", type(error).__name__)


def _install_error_handlers(app: FastAPI) -> None:
    """Gives each error its status, in one place."""

    async def on_error(request: Request, error: Exception) -> Response:
        return problem_response(request.scope, _problem_of(request.scope, error))

    async def on_database_error(request: Request, error: Exception) -> Response:
        # The type alone: the driver's text may repeat the address with its password.
        logger.error("The database failed: %s", type(error).__name__)
        problem = _unavailable("The database does not answer.", DATABASE_RETRY_SECONDS)
        return problem_response(request.scope, problem)

    for kind in (*_STATUSES, SignInRefused, RefreshRefused, LockedOut, HashingBusy):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(SQLAlchemyError, on_database_error)


def _unavailable(detail: str, retry_seconds: int) -> Problem:
    headers = {"Retry-After": str(retry_seconds)}
    return Problem(503, "Service Unavailable", detail, headers=headers)


def _problem_of(scope: Scope, error: Exception) -> Problem:
    if isinstance(error, SignInRefused | RefreshRefused):
        return Problem(401, "Unauthorized", str(error), headers={"WWW-Authenticate": "Bearer"})
    if isinstance(error, LockedOut):
        return too_many_requests(scope, "lockout", str(error), error.retry_seconds)
    if isinstance(error, HashingBusy):
        return _unavailable(str(error), error.retry_seconds)
    kind = next(kind for kind in _STATUSES if isinstance(error, kind))
    status, title = _STATUSES[kind]
    return Problem(status, title, str(error))
