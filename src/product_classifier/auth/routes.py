"""Tokens, keys and the service's own state. Thin: the work is in `sign_in` and `signing`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import OAuth2PasswordRequestForm

from product_classifier import __version__
from product_classifier.auth.dependencies import CurrentUser, OriginDep, ServiceDep
from product_classifier.auth.schemas import (
    Health,
    Ready,
    RefreshRequest,
    TokenAnswer,
    VerifyAnswer,
    Welcome,
)
from product_classifier.auth.service import AuthService
from product_classifier.auth.sessions import Started
from product_classifier.web.leaving import refuse_when_leaving
from product_classifier.web.problems import Problem, problem_responses

router = APIRouter()

# serve asks every five minutes; a new key is published longer than that before it signs.
JWKS_CACHE = "public, max-age=60"


def _answer(service: AuthService, started: Started) -> TokenAnswer:
    return TokenAnswer(
        access_token=service.signing.issue(started.account, started.session_id),
        expires_in=service.signing.lifetime_seconds,
        refresh_token=started.refresh_token,
        refresh_expires_in=int(service.sessions.lifetime_seconds),
    )


@router.post(
    "/token", tags=["tokens"], responses=problem_responses(400, 401, 408, 413, 422, 429, 503)
)
async def sign_in(
    form: Annotated[OAuth2PasswordRequestForm, Depends()], service: ServiceDep, origin: OriginDep
) -> TokenAnswer:
    """Sign in with user name and password (OAuth2 password form)."""
    started = await service.sign_in.sign_in(form.username, form.password, origin)
    return _answer(service, started)


@router.post(
    "/token/refresh",
    tags=["tokens"],
    responses=problem_responses(400, 401, 408, 413, 422, 429, 503),
)
def refresh(body: RefreshRequest, service: ServiceDep, origin: OriginDep) -> TokenAnswer:
    """Get the next access and refresh token. A refresh token that is used twice ends its session."""
    started = service.sign_in.refresh(body.refresh_token.get_secret_value(), origin)
    return _answer(service, started)


@router.post(
    "/logout", tags=["tokens"], status_code=204, responses=problem_responses(401, 413, 429, 503)
)
def sign_out(user: CurrentUser, service: ServiceDep) -> None:
    """End this session: its refresh token is worthless from now on."""
    service.sign_in.sign_out(user.claims.session_id, user.origin)


def _refuse_query_token(request: Request) -> None:
    if "token" in request.query_params:
        raise Problem(
            400,
            "Bad Request",
            "A token in the address ends up in logs and histories. Send it as the header "
            "'Authorization: Bearer <token>', and treat the one in this address as known to others.",
        )


@router.get(
    "/verify-token",
    tags=["tokens"],
    dependencies=[Depends(_refuse_query_token)],
    responses=problem_responses(400, 401, 429, 503),
)
def verify_token(user: CurrentUser) -> VerifyAnswer:
    """Check the bearer token, its session and its user."""
    claims = user.claims
    return VerifyAnswer(sub=claims.subject, role=user.account.role, exp=claims.expires_at)


@router.get("/.well-known/jwks.json", tags=["tokens"], responses=problem_responses(429))
async def jwks(service: ServiceDep, response: Response) -> dict[str, list[dict[str, Any]]]:
    """Give the public keys that verify tokens; none where ALGORITHM=HS256."""
    response.headers["Cache-Control"] = JWKS_CACHE
    return service.signing.jwks()


@router.get("/", tags=["status"], responses=problem_responses(429))
async def welcome() -> Welcome:
    """Say what this is."""
    return Welcome(message="Auth of product-classifier. See /docs.", version=__version__)


@router.get("/health", tags=["status"])
async def health() -> Health:
    """Say that the process answers. Asks nobody else, so it answers while everything waits."""
    return Health()


@router.get(
    "/ready",
    tags=["status"],
    responses=problem_responses(503),
    dependencies=[Depends(refuse_when_leaving)],
)
def ready(service: ServiceDep) -> Ready:
    """Say whether tokens can be given: the database answers and there is a key."""
    if not service.is_ready():
        raise Problem(
            503,
            "Service Unavailable",
            "The database or the signing keys can't be used.",
            headers={"Retry-After": "5"},
        )
    return Ready()
