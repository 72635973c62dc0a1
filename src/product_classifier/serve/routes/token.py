"""`/token`, `/token/refresh` and `/logout`: auth's answers at this service's address."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from product_classifier.serve.dependencies import AuthProxyDep, current_user
from product_classifier.serve.schemas_shell import TokenAnswer
from product_classifier.web.problems import problem_responses

router = APIRouter(tags=["token"])

_STATUSES = problem_responses(400, 401, 408, 413, 415, 422, 429, 431, 503)


def _body(media_type: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


_PASSWORD_FORM = _body(
    "application/x-www-form-urlencoded",
    {
        "grant_type": {"type": "string", "pattern": "^password$"},
        "username": {"type": "string"},
        "password": {"type": "string", "format": "password"},
    },
    ["username", "password"],
)
_REFRESH_BODY = _body("application/json", {"refresh_token": {"type": "string"}}, ["refresh_token"])


@router.post(
    "/token", response_model=TokenAnswer, responses=_STATUSES, openapi_extra=_PASSWORD_FORM
)
async def sign_in(request: Request, auth: AuthProxyDep) -> Response:
    """Get a token for a user name and a password (OAuth2 password form); auth answers."""
    return await auth.forward(request, "/token")


@router.post(
    "/token/refresh", response_model=TokenAnswer, responses=_STATUSES, openapi_extra=_REFRESH_BODY
)
async def refresh(request: Request, auth: AuthProxyDep) -> Response:
    """Get the next token for a refresh token, which is used up by this; auth answers."""
    return await auth.forward(request, "/token/refresh")


@router.post(
    "/logout",
    status_code=204,
    responses=_STATUSES,
    dependencies=[Depends(current_user)],
)
async def sign_out(request: Request, auth: AuthProxyDep) -> Response:
    """End the session that the token came from; auth answers."""
    return await auth.forward(request, "/logout")
