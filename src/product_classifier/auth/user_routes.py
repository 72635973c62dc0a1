"""Users and the audit trail. Thin: the work is in `administration`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from starlette.concurrency import run_in_threadpool

from product_classifier.auth.audit import AuditEvent
from product_classifier.auth.dependencies import AdminUser, CurrentUser, ServiceDep
from product_classifier.auth.errors import SignInRefused
from product_classifier.auth.schemas import (
    AuditEntry,
    AuditPage,
    ChangePasswordRequest,
    ChangeUserRequest,
    CreateUserRequest,
    UserAnswer,
    UserPage,
)
from product_classifier.auth.users import NAME_PATTERN, NewUser, UserChange
from product_classifier.web.problems import Problem, problem_responses

router = APIRouter()

UserName = Annotated[str, Path(pattern=NAME_PATTERN, description="User name, in whatever case")]

_COMMON = (401, 403, 413, 422, 429, 503)


@router.get("/users/me", tags=["users"], responses=problem_responses(401, 429, 503))
def read_me(user: CurrentUser) -> UserAnswer:
    """Give the caller's own account."""
    return UserAnswer.of(user.account)


@router.post(
    "/users/me/password",
    tags=["users"],
    status_code=204,
    responses=problem_responses(400, 408, *_COMMON),
)
async def change_my_password(
    body: ChangePasswordRequest, user: CurrentUser, service: ServiceDep
) -> None:
    """Change the caller's password; its other sessions end. Wrong guesses count toward the lockout."""
    name = user.account.name
    try:
        await service.sign_in.verify(name, body.old_password.get_secret_value(), user.origin)
    except SignInRefused:
        # Not 401: the token is fine, and clients answer a 401 by refreshing it.
        raise Problem(403, "Forbidden", "The old password is wrong.") from None
    change = UserChange(
        password_hash=await service.hasher.hash(body.new_password.get_secret_value())
    )
    await run_in_threadpool(
        service.administration.change, name, change, user.origin, user.claims.session_id
    )


@router.get("/users", tags=["users"], responses=problem_responses(*_COMMON))
def list_users(
    _admin: AdminUser,
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> UserPage:
    """List the users by name."""
    accounts, total = service.administration.list_users(limit, offset)
    return UserPage(users=[UserAnswer.of(account) for account in accounts], total=total)


@router.post(
    "/users", tags=["users"], status_code=201, responses=problem_responses(400, 408, 409, *_COMMON)
)
async def create_user(
    body: CreateUserRequest, admin: AdminUser, service: ServiceDep, response: Response
) -> UserAnswer:
    """Make a user."""
    user = NewUser(
        name=body.name,
        password_hash=await service.hasher.hash(body.password.get_secret_value()),
        role=body.role,
        full_name=body.full_name,
    )
    account = await run_in_threadpool(service.administration.create, user, admin.origin)
    response.headers["Location"] = f"/users/{account.name}"
    return UserAnswer.of(account)


@router.get("/users/{name}", tags=["users"], responses=problem_responses(404, *_COMMON))
def read_user(name: UserName, _admin: AdminUser, service: ServiceDep) -> UserAnswer:
    """Give a user."""
    return UserAnswer.of(service.administration.find(name))


@router.patch(
    "/users/{name}", tags=["users"], responses=problem_responses(400, 404, 408, 409, *_COMMON)
)
async def change_user(
    name: UserName, body: ChangeUserRequest, admin: AdminUser, service: ServiceDep
) -> UserAnswer:
    """Change a user. A new password or role, or disabling, ends all its sessions."""
    password_hash = None
    if body.password is not None:
        password_hash = await service.hasher.hash(body.password.get_secret_value())
    change = UserChange(body.full_name, body.role, body.active, password_hash)
    account = await run_in_threadpool(service.administration.change, name, change, admin.origin)
    return UserAnswer.of(account)


@router.delete(
    "/users/{name}",
    tags=["users"],
    status_code=204,
    responses=problem_responses(404, 409, *_COMMON),
)
def delete_user(name: UserName, admin: AdminUser, service: ServiceDep) -> None:
    """Delete a user with all its sessions."""
    service.administration.delete(name, admin.origin)


@router.get("/audit", tags=["audit"], responses=problem_responses(*_COMMON))
def read_audit(
    _admin: AdminUser,
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    event: AuditEvent | None = None,
) -> AuditPage:
    """Give entries of the audit trail, newest first."""
    rows = service.administration.read_audit(limit, before, event.value if event else None)
    entries = [AuditEntry.model_validate(row) for row in rows]
    return AuditPage(entries=entries, next_before=entries[-1].id if len(entries) == limit else None)
