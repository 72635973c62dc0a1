"""One way to put a service together, so that the two can't differ in what protects them."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import (
    get_redoc_html,
    get_swagger_ui_html,
    get_swagger_ui_oauth2_redirect_html,
)
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from product_classifier import __version__
from product_classifier.core.errors import ConfigurationError
from product_classifier.web.context import REQUEST_ID_HEADER, RequestContext
from product_classifier.web.crowd import CrowdLimit
from product_classifier.web.guard import UNTHROTTLED_PATHS, BodyGuard, GuardPolicy
from product_classifier.web.instrumentation import instrument
from product_classifier.web.metric_registry import MetricRegistry
from product_classifier.web.problems import (
    FaultBarrier,
    Problem,
    ProblemDetails,
    install_problem_handlers,
    problem_responses,
    send_problem,
)
from product_classifier.web.proxies import TrustedProxies

ASSETS = "/docs/assets"
DOCUMENTATION_PATHS = frozenset({"/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"})
DOCUMENTATION_PREFIXES = (f"{ASSETS}/",)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_app(
    title: str, description: str, lifespan: Lifespan, tags: Mapping[str, str] | None = None
) -> FastAPI:
    """Makes an empty app with documentation pages that load nothing from elsewhere.

    What stops `lifespan` is kept in `app.state.startup_error` for `web.server`.

    Args:
        title: Headline of the documentation.
        description: What stands under it.
        lifespan: Starts and ends what the routes need.
        tags: Groups of routes in the order in which readers want them, each with a sentence.
    """

    @asynccontextmanager
    async def remember_error(app: FastAPI) -> AsyncIterator[None]:
        started = False
        registry: MetricRegistry | None = getattr(app.state, "registry", None)
        fresh = registry.kept_fresh() if registry is not None else nullcontext()
        try:
            async with lifespan(app), fresh:
                started = True
                yield
        except Exception as error:
            if not started:
                app.state.startup_error = error
            raise

    app = FastAPI(
        title=title,
        description=description,
        version=__version__,
        lifespan=remember_error,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # one address each: the list of public ones is exact
        openapi_tags=[{"name": name, "description": text} for name, text in (tags or {}).items()],
    )
    _add_documentation(app)
    _add_problem_schema(app)
    return app


def _add_documentation(app: FastAPI) -> None:
    folder = Path(fastapi_offline.__file__).parent / "static"
    app.mount(ASSETS, StaticFiles(directory=folder))
    favicon = f"{ASSETS}/favicon.png"

    @app.get("/docs", include_in_schema=False)
    async def show_swagger() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            oauth2_redirect_url="/docs/oauth2-redirect",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=favicon,
        )

    @app.get("/docs/oauth2-redirect", include_in_schema=False)
    async def show_redirect() -> HTMLResponse:
        return get_swagger_ui_oauth2_redirect_html()

    @app.get("/redoc", include_in_schema=False)
    async def show_redoc() -> HTMLResponse:
        return get_redoc_html(
            openapi_url="/openapi.json",
            title=app.title,
            redoc_js_url=f"{ASSETS}/redoc.standalone.js",
            redoc_favicon_url=favicon,
            with_google_fonts=False,
        )


def _add_problem_schema(app: FastAPI) -> None:
    """Puts the shape of errors into the OpenAPI document, in place of FastAPI's own for 422."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "ProblemDetails" not in schemas or "FieldError" not in schemas:
            shape = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(shape.pop("$defs", {}))
            schemas["ProblemDetails"] = shape
            _document_middlewares(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _document_middlewares(document: dict[str, Any]) -> None:
    """Adds to every operation what the middlewares before it may answer."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            statuses = {400, 408, 413, 431, 500, 503}
            statuses |= {429} if path not in UNTHROTTLED_PATHS else set()
            statuses |= {401} if "security" in operation else set()
            for status, response in problem_responses(*sorted(statuses)).items():
                responses.setdefault(str(status), response)


class ProblemCORSMiddleware(CORSMiddleware):
    """Answers a preflight that is not allowed in the shape of all errors."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, or answers a preflight."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if scope.get("method") == "OPTIONS" and "access-control-request-method" in headers:
            answer = self._preflight(headers)
            if answer is not None and answer.status_code >= 400:
                problem = Problem(
                    400, "Bad Request", "This origin, method or header is not allowed."
                )
                await send_problem(scope, send, problem)
                return
        await super().__call__(scope, receive, send)

    def _preflight(self, headers: Headers) -> Response | None:
        return self.preflight_response(request_headers=headers) if "origin" in headers else None


def parse_origins(text: str | None) -> tuple[str, ...]:
    """Reads CORS_ALLOW_ORIGINS: exact origins, commas between them.

    Raises:
        ConfigurationError: an entry is no origin; `*` is none.
    """
    origins = tuple(entry.strip() for entry in (text or "").split(",") if entry.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if f"{parts.scheme}://{parts.netloc}" != origin or parts.scheme not in ("http", "https"):
            raise ConfigurationError(
                "CORS_ALLOW_ORIGINS must list exact origins such as https://shop.example, with "
                f"commas between them; * is not allowed. Received: {origin!r}."
            )
    return origins


def install(
    app: FastAPI,
    service: str,
    policy: GuardPolicy,
    *,
    trusted: TrustedProxies | None = None,
    origins: tuple[str, ...] = (),
    on_entry: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Puts everything before an app's routes, outermost first: context, CORS, metrics, crowd, fault barrier, guard."""
    install_problem_handlers(app)
    app.add_middleware(BodyGuard, policy=policy)
    app.add_middleware(FaultBarrier)
    app.add_middleware(CrowdLimit)
    instrument(app, service)
    if origins:
        app.add_middleware(
            ProblemCORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=("Authorization", REQUEST_ID_HEADER),
            expose_headers=(
                REQUEST_ID_HEADER,
                "Retry-After",
                "X-RateLimit-Limit",
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
            ),
            max_age=600,
        )
    app.add_middleware(RequestContext, trusted=trusted, on_entry=on_entry)
