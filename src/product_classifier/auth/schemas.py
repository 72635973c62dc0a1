"""What goes in and out of the routes. Secrets are never shown by a repr."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from product_classifier.auth.users import NAME_PATTERN, Account, Role

# Rules for a new password are in `passwords`; this only bounds what is looked at.
Password = Annotated[SecretStr, Field(min_length=1, max_length=1024)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TokenAnswer(BaseModel):
    """An access token, and the refresh token that gives the next one."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - no password
    expires_in: int = Field(description="Seconds")
    refresh_token: str = Field(description="Good for one use; each use gives the next one")
    refresh_expires_in: int = Field(description="Seconds")


class RefreshRequest(_Body):
    """The refresh token that was given last."""

    refresh_token: SecretStr = Field(min_length=1, max_length=256)


class VerifyAnswer(BaseModel):
    """What a valid token says."""

    active: Literal[True] = True
    sub: str = Field(description="User name")
    role: Role
    exp: int = Field(description="End of its life, seconds since 1970")


class UserAnswer(BaseModel):
    """A user as others may see it."""

    name: str
    full_name: str | None
    role: Role
    active: bool
    machine: bool = Field(description="Governed by the service's settings")
    created_at: float = Field(description="Seconds since 1970")
    changed_at: float = Field(description="Seconds since 1970")

    @classmethod
    def of(cls, account: Account) -> "UserAnswer":
        """Takes an account over."""
        return cls(
            name=account.name,
            full_name=account.full_name,
            role=account.role,
            active=account.active,
            machine=account.machine,
            created_at=account.created_at,
            changed_at=account.changed_at,
        )


class UserPage(BaseModel):
    """Some of the users, by name."""

    users: list[UserAnswer]
    total: int


class CreateUserRequest(_Body):
    """A new user."""

    name: str = Field(pattern=NAME_PATTERN)
    password: Password = Field(description="At least 8 characters, at most 72 bytes")
    full_name: str | None = Field(None, max_length=200, pattern=r"^[^\x00]*$")
    role: Role = "user"


class ChangeUserRequest(_Body):
    """What to change; left out or null stays as it is."""

    full_name: str | None = Field(None, max_length=200, pattern=r"^[^\x00]*$")
    role: Role | None = None
    active: bool | None = None
    password: Password | None = None


class ChangePasswordRequest(_Body):
    """The password as it is, and as it shall be."""

    old_password: Password
    new_password: Password = Field(description="At least 8 characters, at most 72 bytes")


class AuditEntry(BaseModel):
    """Something that somebody did."""

    id: int
    at: float = Field(description="Seconds since 1970")
    event: str
    actor: str | None
    subject: str | None
    address: str | None
    request_id: str | None
    detail: str | None


class AuditPage(BaseModel):
    """Entries, newest first."""

    entries: list[AuditEntry]
    next_before: int | None = Field(description="Ask with `before` set to this for older ones")


class Welcome(BaseModel):
    """What this is."""

    message: str
    version: str


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Database and keys can be used."""

    status: Literal["ready"] = "ready"
