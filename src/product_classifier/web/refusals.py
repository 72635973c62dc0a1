"""Why a request was refused, noted where it is known and counted where the answer passes: `web.instrumentation`."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from starlette.types import Scope

from product_classifier.web.problems import Problem
from product_classifier.web.token_parts import TokenReason

# Who is held back: a user, whoever has no valid token, or a name and address whose password was wrong too often.
LimitScope = Literal["user", "anonymous", "lockout"]
LIMIT_SCOPES: tuple[str, ...] = get_args(LimitScope)

_LIMIT, _TOKEN = "limited_by", "token_rejected"  # noqa: S105 - names of notes


def too_many_requests(scope: Scope, who: LimitScope, detail: str, wait_seconds: int) -> Problem:
    """Gives the 429 and notes whose limit it is about; its member `scope` tells whoever hands the answer on."""
    _notes(scope)[_LIMIT] = who
    headers = {"Retry-After": str(wait_seconds)}
    return Problem(429, "Too Many Requests", detail, headers=headers, scope=who)


def note_handed_on_limit(scope: Scope, answer: Mapping[str, Any]) -> None:
    """Notes whose limit another service's 429 is about: as its `scope` says; `anonymous` where that is none of ours."""
    who = answer.get("scope")
    _notes(scope)[_LIMIT] = who if who in LIMIT_SCOPES else "anonymous"


def note_rejection(scope: Scope, reason: TokenReason) -> None:
    """Notes that an access token was not accepted, or that there was none, where one is needed."""
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
