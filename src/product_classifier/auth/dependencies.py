"""What routes ask for: the service, who is calling, and from where."""

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from product_classifier.auth.audit import Origin
from product_classifier.auth.service import AuthService
from product_classifier.auth.users import Account
from product_classifier.web.guard import unauthorized
from product_classifier.web.problems import Problem
from product_classifier.web.tokens import TokenClaims, TokenError

_bearer = OAuth2PasswordBearer(tokenUrl="token", auto_error=False)


def get_service(request: Request) -> AuthService:
    """Gives the service of this app."""
    service: AuthService = request.app.state.service
    return service


ServiceDep = Annotated[AuthService, Depends(get_service)]


def get_origin(request: Request) -> Origin:
    """Says where a request comes from, without a user yet."""
    state = request.scope.get("state", {})
    return Origin(address=state.get("address"), request_id=state.get("request_id"))


OriginDep = Annotated[Origin, Depends(get_origin)]


@dataclass(frozen=True)
class SignedIn:
    """The caller: an active user in a session that has not ended."""

    account: Account
    claims: TokenClaims
    origin: Origin


async def get_claims(
    request: Request, _token: Annotated[str | None, Depends(_bearer)]
) -> TokenClaims:
    """Gives what the guard found in the caller's token: nobody else reads it, so that there are no two readings."""
    state = request.scope.get("state", {})
    claims: TokenClaims | None = state.get("claims")
    if claims is not None:
        return claims
    missing = TokenError("missing", "A bearer token is needed.")
    raise unauthorized(request.scope, state.get("token_error") or missing)


def get_signed_in(
    request: Request,
    service: ServiceDep,
    origin: OriginDep,
    claims: Annotated[TokenClaims, Depends(get_claims)],
) -> SignedIn:
    """Gives the caller, as the database knows it now: a role or session taken away counts at once."""
    account = service.administration.live_account(claims.session_id)
    if account is None or account.name != claims.subject:
        message = "The session has ended, or the user is disabled. Sign in again."
        raise unauthorized(request.scope, TokenError("revoked", message))
    request.scope.setdefault("state", {})["user"] = account.name
    return SignedIn(account, claims, replace(origin, actor=account.name))


CurrentUser = Annotated[SignedIn, Depends(get_signed_in)]


def get_admin(user: CurrentUser) -> SignedIn:
    """Gives the caller if it is an administrator."""
    if user.account.role != "admin":
        raise Problem(403, "Forbidden", "Only administrators may do this.")
    return user


AdminUser = Annotated[SignedIn, Depends(get_admin)]
