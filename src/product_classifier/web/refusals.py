"""Why a request was refused, noted where it is known and counted where the answer passes: `web.instrumentation`."""

from typing import Any, Literal, get_args

from starlette.types import Scope

from product_classifier.web.token_parts import TokenReason

# Who is held back: a user, whoever has no valid token, or a name and address that failed to sign in.
LimitScope = Literal["user", "anonymous", "lockout"]
LIMIT_SCOPES: tuple[str, ...] = get_args(LimitScope)

_LIMIT, _TOKEN = "limited_by", "token_rejected"  # noqa: S105 - names of notes


def note_limit(scope: Scope, who: LimitScope) -> None:
    """Notes whose limit a 429 is about."""
    _notes(scope)[_LIMIT] = who


def note_rejection(scope: Scope, reason: TokenReason) -> None:
    """Notes that the request's access token was not accepted, or that there was none where one is needed."""
    _notes(scope)[_TOKEN] = reason


def limited_by(scope: Scope) -> str:
    """Gives whose limit it is; a user's, where nobody said."""
    return str(_notes(scope).get(_LIMIT, "user"))


def token_rejection(scope: Scope) -> str | None:
    """Gives why the token was not accepted; None where it was, or where none was needed."""
    reason: str | None = _notes(scope).get(_TOKEN)
    return reason


def _notes(scope: Scope) -> dict[str, Any]:
    notes: dict[str, Any] = scope.setdefault("state", {})
    return notes
