"""A small app behind everything that `web.app.install` puts before a service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from product_classifier.web.app import (
    DOCUMENTATION_PATHS,
    DOCUMENTATION_PREFIXES,
    build_app,
    install,
)
from product_classifier.web.guard import GuardPolicy
from product_classifier.web.problems import Problem
from product_classifier.web.tokens import KeysUnavailable, TokenClaims, TokenError

GOOD = "good.token.signature"
AUTHORIZATION = {"Authorization": f"Bearer {GOOD}"}
BODY_BYTES = 300_000


async def verify(token: str) -> TokenClaims:
    """Believes one token."""
    if token == "no-keys":
        raise KeysUnavailable
    if token != GOOD:
        raise TokenError("signature", "The signature is not ours.")
    return TokenClaims("alice", "user", "t1", "s1", 0, 2**31)


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


def _add_pages(app: FastAPI) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/open")
    async def open_page() -> dict[str, str]:
        return {"status": "open"}

    @app.get("/who")
    async def who(request: Request) -> dict[str, Any]:
        request.state.bundle_id = "b1"
        return {"user": request.state.user, "address": request.state.address}

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("secret detail")

    @app.get("/problem")
    async def problem() -> None:
        raise Problem(409, "Conflict", "Taken.", headers={"Retry-After": "3"}, field="name")


def _add_bodies(app: FastAPI) -> None:
    @app.post("/open-post")
    async def open_post(request: Request) -> int:
        return len(await request.body())

    @app.post("/upload")
    async def upload(request: Request) -> dict[str, int]:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            app.state.consumed += len(chunk)
        return {"size": size}

    @app.post("/form")
    async def form(request: Request) -> dict[str, int]:
        return {"parts": len(await request.form())}


def guarded_app(
    *, policy: dict[str, Any] | None = None, lifespan: Any = _lifespan, **options: Any
) -> FastAPI:
    """Builds it; `app.state.consumed` counts the body bytes that the app was given."""
    app = build_app("test", "A test.", lifespan)
    app.state.consumed = 0

    _add_pages(app)
    _add_bodies(app)
    install(
        app,
        "test",
        GuardPolicy(
            verify=verify,
            public_paths=frozenset({"/health", "/open", "/open-post", "/metrics"})
            | DOCUMENTATION_PATHS,
            public_prefixes=DOCUMENTATION_PREFIXES,
            **{"body_bytes": {"/upload": BODY_BYTES, "/form": BODY_BYTES}, **(policy or {})},
        ),
        **options,
    )
    return app
